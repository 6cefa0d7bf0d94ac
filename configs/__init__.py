"""The settings of the paper's models, a file each; config_fields.py has every field."""

"""The settings of the paper's models, a file each; config_checks.py has every field."""

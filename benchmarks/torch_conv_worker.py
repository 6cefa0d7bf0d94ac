"""Worker: the convolutions of a training step, each alone, by PyTorch with channels last."""

import time

import convolutions
import torch
from pipe import Pipe


def main():
    pipe = Pipe()
    torch.set_num_threads(pipe.settings["threads"])
    torch.manual_seed(0)
    pieces = [prepare(c) for c in convolutions.of_step(**of(pipe.settings, "model", "prior"))]
    for functions, _ in pieces:
        for run in functions.values():
            run()
    pipe.answer(torch=torch.__version__)
    while pipe.wait():
        totals = {}
        for functions, count in pieces:
            for name, run in functions.items():
                start = time.perf_counter()
                run()
                totals[name] = totals.get(name, 0.0) + count * (time.perf_counter() - start)
        pipe.answer(**totals)


def of(settings, *names):
    return {name: settings[name] for name in names}


def prepare(c):
    """({direction: function}, count) with the inputs in place."""
    last = torch.channels_last
    padding = c.kernel // 2
    x = torch.randn(c.rows, c.channels, c.side, c.side).contiguous(memory_format=last)
    kernel = torch.randn(c.features, c.channels, c.kernel, c.kernel).contiguous(memory_format=last)
    if c.masked:
        kernel[:, :, 1, 2] = kernel[:, :, 2] = 0.0

    def forward():
        return torch.nn.functional.conv2d(x, kernel, None, c.stride, padding)

    g = torch.randn_like(forward())

    def backward():
        settings = [c.stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
        wanted = [not c.input_is_data, True, False]
        return torch.ops.aten.convolution_backward(g, x, kernel, None, *settings, wanted)

    functions = {"forward": forward, "backward": backward}
    return functions, c.count


if __name__ == "__main__":
    main()

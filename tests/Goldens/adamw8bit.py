"""Writes adamw8bit/case.safetensors: steps of bitsandbytes' block-wise 8-bit AdamW, transcribed from its CUDA kernels.

What kOptimizerStatic8bit2StateBlockwise and quantize_2D of bitsandbytes (csrc/kernels.cu) do to a value, and create_dynamic_map
(functional.py) to the tables, each operation rounded to float32; for weights of fewer than 4096 values what kOptimizer32bit2State does.
Run: python3 adamw8bit.py (needs nothing else).
"""
import array
import json
import math
import os
import random
import struct

BLOCK, LEAST, STEPS = 256, 4096, 12


def f(x):
    """Rounds to float32; one operation on float32 values in double, so rounded, is that of float32."""
    return struct.unpack("f", struct.pack("f", x))[0]


BETA1, BETA2, EPS, RATE, DECAY = f(0.9), f(0.999), f(1e-8), f(1e-2), f(0.1)
REST1, REST2 = f(1 - BETA1), f(1 - BETA2)


def table(signed):
    values = [0.0, 1.0]
    for i in range(7):
        parts = 2 ** (i if signed else i + 1)
        edges = [f(0.1 + 0.9 * part / parts) for part in range(parts + 1)]
        means = [10.0 ** (i - 6) * f(f(low + high) / 2) for low, high in zip(edges, edges[1:])]
        values += means + ([-mean for mean in means] if signed else [])
    return sorted(map(f, values))


def code_of(x, codes, signed):
    """The binary search of quantize_2D, its last comparison with a midpoint included."""
    pivot, above, below, upper, lower = 127, 255, 0, 1.0, -1.0 if signed else 0.0
    value = codes[127]
    step = 64
    while step:
        if x > value:
            below, lower, pivot = pivot, value, pivot + step
        else:
            above, upper, pivot = pivot, value, pivot - step
        value = codes[pivot]
        step //= 2
    if x > value:
        return above if x > f(f(upper + value) * 0.5) else pivot
    return below if x < f(f(lower + value) * 0.5) else pivot


def quantise(values, codes, signed):
    largest = max(map(abs, values))
    if largest == 0:
        return [127 if signed else 0] * len(values), 0.0
    result = []
    for value in values:
        code = code_of(f(value / largest), codes, signed)
        if signed and math.copysign(1, codes[code]) != math.copysign(1, value):
            code += 1 if value > 0 else -1
        result.append(code)
    return result, largest


def moments(mean, square, g):
    return f(f(mean * BETA1) + f(REST1 * g)), f(f(square * BETA2) + f(f(REST2 * g) * g))


def moved(p, mean, square, step):
    correction1, correction2 = f(1 - f(BETA1 ** step)), f(math.sqrt(f(1 - f(BETA2 ** step))))
    size = f(f(-RATE * correction2) / correction1)
    p = f(p + f(size * f(mean / f(f(math.sqrt(square)) + f(correction2 * EPS)))))
    return f(p * f(1 - f(RATE * DECAY)))


class Wide:
    """Of a weight with few values."""

    def __init__(self, count):
        self.state = [(0.0, 0.0)] * count

    def step(self, p, g, step):
        self.state = [moments(mean, square, each) for (mean, square), each in zip(self.state, g)]
        return [moved(value, mean, square, step) for value, (mean, square) in zip(p, self.state)]


class Narrow:
    """Of one with many: codes, and the largest of each block."""

    def __init__(self, count):
        blocks = -(-count // BLOCK)
        self.signed, self.unsigned = table(True), table(False)
        self.first, self.second = [127] * count, [0] * count
        self.first_max, self.second_max = [0.0] * blocks, [0.0] * blocks

    def step(self, p, g, step):
        p = list(p)
        for block in range(len(self.first_max)):
            here = range(block * BLOCK, min((block + 1) * BLOCK, len(p)))
            means, squares = [], []
            for i in here:
                mean, square = f(self.signed[self.first[i]] * self.first_max[block]), f(self.unsigned[self.second[i]] * self.second_max[block])
                mean, square = moments(mean, square, g[i])
                p[i] = moved(p[i], mean, square, step)
                means.append(mean)
                squares.append(square)
            self.first[here.start:here.stop], self.first_max[block] = quantise(means, self.signed, True)
            self.second[here.start:here.stop], self.second_max[block] = quantise(squares, self.unsigned, False)
        return p


def write(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        raw = array.array("f" if dtype == "F32" else "B", values).tobytes()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def gradient(draw, step, i):
    """From large to lost; a block that never moves; in another, at every other step, small ones of the other sign."""
    g = draw.gauss(0, 1) * 10.0 ** draw.randint(-6, 0)
    return 0.0 if 512 <= i < 768 else f(g * -1e-7 if 768 <= i < 1024 and step % 2 == 0 else g)


def main():
    draw = random.Random(8)
    tensors = {}
    for name, count, kind in [("narrow", LEAST + 900, Narrow), ("wide", LEAST - 1, Wide)]:
        p = [f(draw.gauss(0, 1)) for _ in range(count)]
        tensors[f"{name}.start"] = ("F32", [count], p)
        state, gradients, after = kind(count), [], []
        for step in range(1, STEPS + 1):
            g = [gradient(draw, step, i) for i in range(count)]
            p = state.step(p, g, step)
            gradients += g
            after += p
        tensors[f"{name}.gradients"] = ("F32", [STEPS, count], gradients)
        tensors[f"{name}.after"] = ("F32", [STEPS, count], after)
        if kind is Narrow:
            blocks = len(state.first_max)
            tensors |= {
                "first": ("U8", [count], state.first), "first_max": ("F32", [blocks], state.first_max),
                "second": ("U8", [count], state.second), "second_max": ("F32", [blocks], state.second_max),
            }
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "adamw8bit")
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, "case.safetensors"), tensors)


if __name__ == "__main__":
    main()

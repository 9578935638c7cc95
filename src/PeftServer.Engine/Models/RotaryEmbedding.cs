using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// Rotary position embedding: each pair of dimensions of a head turns by an angle that grows with the position.
/// <see href="https://arxiv.org/abs/2104.09864"/>. Frequencies as transformers computes them for each <c>rope_type</c>.
/// </summary>
public sealed class RotaryEmbedding
{
    private readonly float[] _inverseFrequencies;
    private readonly Dictionary<(DeviceType, int), Tensor> _onDevice = []; // a Device is no key: two of the same differ

    /// <param name="config">The model's config; old spellings (<c>rope_theta</c>, <c>rope_scaling</c>) are read too.</param>
    /// <param name="headDim">Dimensions of a head that turn.</param>
    /// <param name="kind">The kind of layer, where each has angles of its own (<c>rope_parameters.full_attention</c>).</param>
    /// <param name="oldTheta">Older field that holds the base of this kind of layer.</param>
    /// <param name="theta">The base where no field says it.</param>
    public RotaryEmbedding(PretrainedConfig config, int headDim, string? kind = null, string oldTheta = "rope_theta", double theta = 10_000)
    {
        var rope = config.Section("rope_parameters") ?? (oldTheta == "rope_theta" ? config.Section("rope_scaling") : null);
        rope = kind is not null && rope?.Section(kind) is { } own ? own : rope;
        theta = rope?.Number("rope_theta", config.Number(oldTheta, theta)) ?? config.Number(oldTheta, theta);
        var type = rope?.Text("rope_type", null!) ?? rope?.Text("type", null!) ?? "default";
        var frequencies = Enumerable.Range(0, headDim / 2).Select(i => 1.0 / Math.Pow(theta, 2.0 * i / headDim));
        _inverseFrequencies = [.. (type switch
        {
            "default" => frequencies,
            "linear" => frequencies.Select(frequency => frequency / rope!.Number("factor", 1)),
            "llama3" => frequencies.Select(frequency => Llama3(frequency, rope!)),
            _ => throw config.Unsupported("rope_type", type),
        }).Select(frequency => (float)frequency)];
    }

    /// <summary>How many dimensions of a head turn: <c>partial_rotary_factor</c>, where it is written today and where it was.</summary>
    public static int TurningDimensions(PretrainedConfig config, int headDim, double otherwise)
    {
        var old = config.Number("partial_rotary_factor", config.Number("rotary_pct", config.Number("rope_pct", otherwise)));
        return (int)(headDim * (config.Section("rope_parameters")?.Number("partial_rotary_factor", old) ?? old));
    }

    /// <summary>Cosines and sines of the angles at <paramref name="positions"/> [n]: two tensors [n, 1, D/2] of the given type.</summary>
    public (Tensor Cos, Tensor Sin) At(Tensor positions, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var angles = positions.to(ScalarType.Float32).unsqueeze(1).mul(Frequencies(positions.device)).unsqueeze(1); // [n, 1, D/2]
        return (angles.cos().to(dtype).MoveToOuterDisposeScope(), angles.sin().to(dtype).MoveToOuterDisposeScope());
    }

    /// <summary>Turns x [n, H, D]: the first half of a head's dimensions pairs with the second.</summary>
    public static Tensor Rotate(Tensor x, (Tensor Cos, Tensor Sin) angle)
    {
        using var scope = NewDisposeScope();
        if (2 * angle.Cos.size(-1) is var turning && turning < x.size(-1))
        {
            return cat([Rotate(x.narrow(-1, 0, turning), angle), x.narrow(-1, turning, x.size(-1) - turning)], -1).MoveToOuterDisposeScope();
        }

        var halves = x.chunk(2, -1);
        var (a, b) = (halves[0], halves[1]); // [n, H, D/2]
        var turned = cat([a.mul(angle.Cos).Minus(b.mul(angle.Sin)), b.mul(angle.Cos).Plus(a.mul(angle.Sin))], -1);
        return turned.MoveToOuterDisposeScope(); // [n, H, D]
    }

    /// <summary>Turns x [n, H, D], where dimensions 0 and 1 are a pair, 2 and 3, and so on: GPT-J's and Cohere's order.</summary>
    public static Tensor RotateInterleaved(Tensor x, (Tensor Cos, Tensor Sin) angle)
    {
        using var scope = NewDisposeScope();
        if (2 * angle.Cos.size(-1) is var turning && turning < x.size(-1))
        {
            return cat([RotateInterleaved(x.narrow(-1, 0, turning), angle), x.narrow(-1, turning, x.size(-1) - turning)], -1).MoveToOuterDisposeScope();
        }

        var pairs = x.reshape(x.size(0), x.size(1), -1, 2);
        var (a, b) = (pairs.select(-1, 0), pairs.select(-1, 1)); // [n, H, D/2]
        var turned = stack([a.mul(angle.Cos).Minus(b.mul(angle.Sin)), b.mul(angle.Cos).Plus(a.mul(angle.Sin))], -1);
        return turned.reshape(x.shape).MoveToOuterDisposeScope(); // [n, H, D]
    }

    private Tensor Frequencies(Device device)
    {
        var place = (device.type, device.index);
        if (!_onDevice.TryGetValue(place, out var frequencies))
        {
            _onDevice[place] = frequencies = tensor(_inverseFrequencies, device: device).DetachFromDisposeScope();
        }

        return frequencies; // [D/2]
    }

    // Llama 3.1: long waves are stretched by the factor, short ones kept, those between interpolated.
    private static double Llama3(double frequency, PretrainedConfig rope)
    {
        var (factor, original) = (rope.Number("factor", 8), rope.Number("original_max_position_embeddings", 8192));
        var (low, high) = (rope.Number("low_freq_factor", 1), rope.Number("high_freq_factor", 4));
        var wave = 2 * Math.PI / frequency;
        if (wave < original / high)
        {
            return frequency;
        }

        if (wave > original / low)
        {
            return frequency / factor;
        }

        var smooth = ((original / wave) - low) / (high - low);
        return ((1 - smooth) * frequency / factor) + (smooth * frequency);
    }
}

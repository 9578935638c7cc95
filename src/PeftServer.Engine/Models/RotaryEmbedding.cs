using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// Rotary position embedding: each pair of dimensions of a head turns by an angle that grows with the position.
/// <see href="https://arxiv.org/abs/2104.09864"/>. Frequencies as transformers computes them for each <c>rope_type</c>.
/// </summary>
public sealed class RotaryEmbedding
{
    private readonly RotaryFrequencies _frequencies;
    private readonly KeptScalar? _attention;
    private readonly Dictionary<(DeviceType, int), Tensor> _onDevice = []; // a Device is no key: two of the same differ

    /// <param name="config">The model's config; old spellings (<c>rope_theta</c>, <c>rope_scaling</c>) are read too.</param>
    /// <param name="headDim">Dimensions of a head that turn.</param>
    /// <param name="kind">The kind of layer, where each has angles of its own (<c>rope_parameters.full_attention</c>).</param>
    /// <param name="oldTheta">Older field that holds the base of this kind of layer.</param>
    /// <param name="theta">The base where no field says it.</param>
    public RotaryEmbedding(PretrainedConfig config, int headDim, string? kind = null, string oldTheta = "rope_theta", double theta = 10_000)
    {
        var rope = config.Section("rope_parameters") ?? (oldTheta == "rope_theta" ? config.Section("rope_scaling") : null);
        _ = config.Has("rope_scaling"); // some configs say both
        rope = kind is not null && rope?.Section(kind) is { } own ? own : rope;
        theta = rope?.Number("rope_theta", config.Number(oldTheta, theta)) ?? config.Number(oldTheta, theta);
        Dimensions = headDim;
        _frequencies = RotaryFrequencies.Of(config, headDim, rope, theta);
        _attention = _frequencies.Attention == 1 ? null : new KeptScalar(_frequencies.Attention);
    }

    /// <summary>Dimensions of a head that turn.</summary>
    public int Dimensions { get; }

    /// <summary>Whether long sequences turn otherwise than short ones.</summary>
    public bool DependsOnLength => _frequencies.FirstLong < int.MaxValue;

    /// <summary>How many dimensions of a head turn: <c>partial_rotary_factor</c>, where it is written today and where it was.</summary>
    public static int TurningDimensions(PretrainedConfig config, int headDim, double otherwise)
    {
        var old = config.Number("partial_rotary_factor", config.Number("rotary_pct", config.Number("rope_pct", otherwise)));
        var factor = config.Section("rope_parameters")?.Number("partial_rotary_factor", old) ?? old;
        return factor is > 0 and <= 1 ? (int)(headDim * factor) : throw config.Unsupported("partial_rotary_factor", factor);
    }

    /// <summary>Cosines and sines of the angles of the tokens of <paramref name="batch"/>: two tensors [n, 1, D/2] of the given type.</summary>
    public (Tensor Cos, Tensor Sin) At(ForwardBatch batch, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (cos, sin) = DependsOnLength ? AtLengths(batch, dtype) : At(batch.Positions, dtype);
        return (cos.MoveToOuterDisposeScope(), sin.MoveToOuterDisposeScope());
    }

    /// <summary>The same at <paramref name="positions"/> [n] of sequences that are not long.</summary>
    public (Tensor Cos, Tensor Sin) At(Tensor positions, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (cos, sin) = Angles(positions, Frequencies(positions.device), dtype);
        return (cos.MoveToOuterDisposeScope(), sin.MoveToOuterDisposeScope());
    }

    /// <summary>
    /// Each sequence by its own length so far, whoever is beside it in the batch. transformers takes the longest of the batch; for
    /// one sequence that is the same.
    /// </summary>
    private (Tensor Cos, Tensor Sin) AtLengths(ForwardBatch batch, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var lasts = tensor(batch.Starts.Skip(1).Select(end => end - 1L).ToArray(), device: batch.Positions.device);
        var lengths = batch.Positions.index_select(0, lasts).cpu().data<long>().Select(position => (int)position + 1).ToList(); // a device sync
        var parts = lengths.Select((length, i) =>
        {
            var positions = batch.Positions.narrow(0, batch.Starts[i], batch.Starts[i + 1] - batch.Starts[i]);
            var frequencies = length < _frequencies.FirstLong ? Frequencies(positions.device) : tensor(_frequencies.At(length), device: positions.device);
            return Angles(positions, frequencies, dtype);
        }).ToList();
        return (cat([.. parts.Select(part => part.Cos)], 0).MoveToOuterDisposeScope(), cat([.. parts.Select(part => part.Sin)], 0).MoveToOuterDisposeScope());
    }

    private (Tensor Cos, Tensor Sin) Angles(Tensor positions, Tensor frequencies, ScalarType dtype)
    {
        var angles = positions.to(ScalarType.Float32).unsqueeze(1).mul(frequencies).unsqueeze(1); // [n, 1, D/2]
        var (cos, sin) = (angles.cos(), angles.sin());
        return _attention is null ? (cos.to(dtype), sin.to(dtype)) : (cos.mul(_attention).to(dtype), sin.mul(_attention).to(dtype));
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
            _onDevice[place] = frequencies = tensor(_frequencies.At(0), device: device).DetachFromDisposeScope();
        }

        return frequencies; // [D/2]
    }
}

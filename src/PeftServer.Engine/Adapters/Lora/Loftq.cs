using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoftQ: rounds W − BA, then decomposes what rounding lost, in turns. <see href="https://arxiv.org/abs/2310.08659"/>.</summary>
internal static class Loftq
{
    private const int Block = 64;
    private static readonly Scalar Levels8 = 127f.ToScalar();

    /// <summary>The quantiles of a normal distribution that NF4 rounds to.</summary>
    private static readonly float[] NormalFloats =
    [
        -1f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0f,
        0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1f,
    ];

    /// <summary>A [r, in], B [out, r] and the error W − Q of the rounded base Q.</summary>
    public static (Tensor A, Tensor B, Tensor Lost) Start(Projection site, int r, LoftqConfig config)
    {
        var weight = site.DenseWeight().to(ScalarType.Float32);
        var (rest, a, b, lost) = (weight, weight, weight, weight);
        for (var i = 0; i < (config.LoftqIter ?? 1); i++)
        {
            lost = weight.Minus(config.LoftqBits == 8 ? RoundedTo8(rest) : RoundedTo4(rest));
            var (u, s, vt) = LowRank.Svd(lost);
            var root = s.narrow(0, 0, r).sqrt();
            (a, b) = (LowRank.ScaleRows(vt.narrow(0, 0, r), root), LowRank.ScaleColumns(u.narrow(1, 0, r), root));
            rest = weight.Minus(b.mm(a));
        }

        return (a, b, lost);
    }

    /// <summary>NF4 and back: blocks of 64 values row by row, each in units of its largest.</summary>
    private static Tensor RoundedTo4(Tensor weight)
    {
        var count = weight.numel();
        var padded = F.pad(weight.reshape(-1), [0, (Block - (count % Block)) % Block]).view(-1, Block); // [blocks, 64]
        var largest = padded.abs().amax([1], keepdim: true);
        var scaled = padded.mul(largest.reciprocal().nan_to_num(0, 0, 0));
        var table = tensor(NormalFloats, device: weight.device);

        // Midway between two levels belongs to the lower one.
        var borders = table.narrow(0, 0, 15).Plus(table.narrow(0, 1, 15)).Times(0.5);
        var codes = bucketize(scaled, borders);
        return table.index_select(0, codes.flatten()).view_as(padded).mul(largest).reshape(-1).narrow(0, 0, count).view(weight.shape);
    }

    /// <summary>int8 and back: half-precision rows, each in units of its largest over 127.</summary>
    private static Tensor RoundedTo8(Tensor weight)
    {
        var half = weight.to(ScalarType.Float16).to(ScalarType.Float32);
        var largest = half.abs().amax([1], keepdim: true);
        return half.mul(largest.reciprocal().nan_to_num(0, 0, 0).mul(Levels8)).round().mul(largest).Times(7.874015718698502e-3);
    }
}

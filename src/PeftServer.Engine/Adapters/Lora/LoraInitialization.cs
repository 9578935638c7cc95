using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>How A and B start. Draws are on the CPU, so that a seed means the same on every device.</summary>
internal static class LoraInitialization
{
    private static readonly Scalar Tenth = 0.1.ToScalar();

    /// <summary>A [r, in] and B [out, r] of an init that needs no decomposition.</summary>
    public static (Tensor A, Tensor B) Drawn(LoraInit init, IReadOnlyList<long> a, IReadOnlyList<long> b, Generator generator) => init.Name switch
    {
        "gaussian" => (Normal(a, 1.0 / a[0], generator), zeros(b[0], b[1])),
        "false" => (Uniform(a, generator), Uniform(b, generator)),
        _ => (Uniform(a, generator), zeros(b[0], b[1])),
    };

    /// <summary>Odd and even rows of one orthogonal matrix make A and B, so that BA starts at zero although neither does.</summary>
    public static (Tensor A, Tensor B) Orthogonal(IReadOnlyList<long> a, IReadOnlyList<long> b, Generator generator)
    {
        var (half, q) = (a[0] / 2, linalg.qr(randn(a[0], a[0], generator: generator)).Q.view(-1, 2, a[0])); // [r/2, 2, r]
        return (
            randn(a[1], half, generator: generator).mm(q.select(1, 0)).t().mul(Tenth).contiguous(),
            randn(half, b[0], generator: generator).t().mm(q.select(1, 1)).mul(Tenth));
    }

    /// <summary>MiCA: B is the directions that W uses least, and stays; A starts at zero. <see href="https://arxiv.org/abs/2604.01694"/>.</summary>
    public static (Tensor A, Tensor B) Minor(Projection site, int r)
    {
        var u = LowRank.Svd(site.DenseWeight()).U;
        return (zeros(r, site.InFeatures, device: u.device), u.narrow(1, u.size(1) - r, r).contiguous());
    }

    /// <summary>
    /// PiSSA: the first r singular directions of W; <see href="https://arxiv.org/abs/2404.02948"/>. The randomised search draws from a seed of its
    /// own, so that loading finds the same.
    /// </summary>
    public static (Tensor A, Tensor B) Principal(Projection site, int r, double scale, int? iterations)
    {
        using var generator = new Generator(0);
        var weight = site.DenseWeight().to(ScalarType.Float32);
        var (u, s, vt) = iterations is { } rounds ? LowRank.RandomizedSvd(weight, r, rounds, generator) : LowRank.Svd(weight);
        var root = s.narrow(0, 0, r).Times(1 / scale).sqrt(); // [r]
        return (LowRank.ScaleRows(vt.narrow(0, 0, r), root), LowRank.ScaleColumns(u.narrow(1, 0, r), root));
    }

    /// <summary>OLoRA: the first r directions of W = QR. <see href="https://arxiv.org/abs/2406.01775"/>.</summary>
    public static (Tensor A, Tensor B) Orthonormal(Projection site, int r)
    {
        var (q, upper) = linalg.qr(site.DenseWeight().to(ScalarType.Float32));
        return (upper.narrow(0, 0, r).contiguous(), q.narrow(1, 0, r).contiguous());
    }

    /// <summary>Kaiming-uniform with a = √5, as nn.Linear starts: ±1/√fan_in.</summary>
    private static Tensor Uniform(IReadOnlyList<long> shape, Generator generator)
    {
        using var half = 0.5.ToScalar();
        using var width = (2 / Math.Sqrt(shape[1])).ToScalar();
        return rand(shape[0], shape[1], generator: generator).sub_(half).mul_(width);
    }

    private static Tensor Normal(IReadOnlyList<long> shape, double deviation, Generator generator)
    {
        using var spread = deviation.ToScalar();
        return randn(shape[0], shape[1], generator: generator).mul(spread);
    }
}

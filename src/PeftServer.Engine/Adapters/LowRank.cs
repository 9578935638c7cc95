using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters;

/// <summary>Decompositions of weights in float32.</summary>
internal static class LowRank
{
    /// <summary>W = U diag(S) Vᵀ, singular values falling: U [out, k], S [k], Vᵀ [k, in].</summary>
    public static (Tensor U, Tensor S, Tensor Vt) Svd(Tensor weight) => linalg.svd(weight.to(ScalarType.Float32), fullMatrices: false);

    /// <summary>
    /// The first <paramref name="rank"/> directions by power iteration on random vectors, as torch.svd_lowrank finds them: the same draws of a
    /// seed give the same result. U [out, q], S [q], Vᵀ [q, in].
    /// </summary>
    public static (Tensor U, Tensor S, Tensor Vt) RandomizedSvd(Tensor weight, long rank, int iterations, Generator generator)
    {
        var wide = weight.size(0) < weight.size(1);
        var tall = wide ? weight.t() : weight; // [m, n], m ≥ n
        var q = linalg.qr(tall.mm(randn([tall.size(1), rank], dtype: tall.dtype, generator: generator).to(tall.device))).Q; // [m, q]
        for (var i = 0; i < iterations; i++)
        {
            q = linalg.qr(tall.t().mm(q)).Q;
            q = linalg.qr(tall.mm(q)).Q;
        }

        var (u, s, vt) = linalg.svd(q.t().mm(tall), fullMatrices: false);
        return wide ? (vt.t(), s, q.mm(u).t()) : (q.mm(u), s, vt);
    }

    /// <summary>The columns of <paramref name="matrix"/> scaled by <paramref name="factors"/>.</summary>
    public static Tensor ScaleColumns(Tensor matrix, Tensor factors) => matrix.mul(factors.unsqueeze(0));

    /// <summary>The rows of <paramref name="matrix"/> scaled by <paramref name="factors"/>.</summary>
    public static Tensor ScaleRows(Tensor matrix, Tensor factors) => matrix.mul(factors.unsqueeze(1));

    /// <summary>How far <paramref name="gram"/> [r, r] is from the unit matrix: ‖G − I‖.</summary>
    public static Tensor DistanceFromUnit(Tensor gram) => gram.Minus(eye(gram.size(0), device: gram.device)).norm();
}

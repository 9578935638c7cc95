using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters;

/// <summary>Orthogonal matrices from skew-symmetric ones.</summary>
internal static class CayleyTransform
{
    private static readonly Scalar Two = 2.0.ToScalar();

    /// <summary>Skew-symmetric matrices [b, side, side] whose upper triangles are the rows of <paramref name="upper"/>.</summary>
    public static Tensor Skew(Tensor upper, long side)
    {
        var places = new List<long>();
        for (var i = 0L; i < side; i++)
        {
            for (var j = i + 1; j < side; j++)
            {
                places.Add((i * side) + j);
            }
        }

        var index = tensor(places.ToArray(), device: upper.device).unsqueeze(0).expand(upper.size(0), -1);
        var half = zeros(upper.size(0), side * side, dtype: upper.dtype, device: upper.device).scatter(1, index, upper).view(-1, side, side);
        return half.Minus(half.transpose(1, 2));
    }

    /// <summary>(I − Q)(I + Q)⁻¹.</summary>
    public static Tensor Exact(Tensor skew)
    {
        // There is no solver in half precision.
        var dtype = skew.dtype;
        skew = skew.to(ScalarType.Float32);
        var unit = eye(skew.size(-1), device: skew.device);

        // X(I + Q) = I − Q, transposed: (I + Q)ᵀXᵀ = (I − Q)ᵀ; and Qᵀ = −Q.
        return linalg.solve(unit.Minus(skew), unit.Plus(skew)).transpose(-1, -2).to(dtype);
    }

    /// <summary>I + 2Q + 2Q² + … + Qᵏ: the series of (I + Q)(I − Q)⁻¹ with this many terms, its last one halved.</summary>
    public static Tensor Neumann(Tensor skew, int terms)
    {
        var sum = eye(skew.size(-1), dtype: skew.dtype, device: skew.device).expand(skew.shape);
        if (terms > 1)
        {
            sum = sum.Plus(skew.mul(Two));
        }

        if (terms > 2)
        {
            var power = skew.bmm(skew);
            sum = sum.Plus(power.mul(Two));
            for (var i = 3; i < terms - 1; i++)
            {
                power = power.bmm(skew);
                sum = sum.Plus(power.mul(Two));
            }

            sum = sum.Plus(power.bmm(skew));
        }

        return sum;
    }
}

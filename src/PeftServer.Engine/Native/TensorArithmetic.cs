namespace PeftServer.Engine.Native;

/// <summary>
/// Arithmetic with kept scalars. TorchSharp's own operators make a temporary <see cref="Scalar"/> whose finalizer races with
/// the native call, also for <c>a + b</c> of two tensors (its hidden alpha); these do not.
/// </summary>
public static class TensorArithmetic
{
    public static readonly Scalar Zero = 0f.ToScalar();
    public static readonly Scalar One = 1f.ToScalar();
    public static readonly Scalar MinusOne = (-1f).ToScalar();
    public static readonly Scalar NegativeInfinity = float.NegativeInfinity.ToScalar();

    extension(Tensor x)
    {
        public Tensor Plus(Tensor y) => x.add(y, One);

        public Tensor Minus(Tensor y) => x.add(y, MinusOne);

        /// <summary>x += y; returns x.</summary>
        public Tensor Add(Tensor y) => x.add_(y, One);

        public Tensor Plus(double y)
        {
            using var number = y.ToScalar();
            return x.add(number);
        }

        public Tensor Times(double y)
        {
            using var number = y.ToScalar();
            return x.mul(number);
        }

        /// <summary>x ← y · x; returns x.</summary>
        public Tensor Scale(double y)
        {
            using var number = y.ToScalar();
            return x.mul_(number);
        }

        /// <summary>x += factor · y; returns x.</summary>
        public Tensor Add(Tensor y, double factor)
        {
            using var number = factor.ToScalar();
            return x.add_(y, number);
        }

        public Tensor AtLeast(double limit)
        {
            using var number = limit.ToScalar();
            return x.clamp_min(number);
        }

        public Tensor AtMost(double limit)
        {
            using var number = limit.ToScalar();
            return x.clamp_max(number);
        }

        /// <summary>1 − x.</summary>
        public Tensor Complement()
        {
            using var scope = NewDisposeScope();
            return x.neg().Plus(1).MoveToOuterDisposeScope();
        }

        /// <summary>log σ(x), without overflow at either end.</summary>
        public Tensor LogSigmoid() => Aten.LogSigmoid(x);
    }
}

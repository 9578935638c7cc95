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
    }
}

namespace PeftServer.Engine.Native;

/// <summary>
/// A number that a module keeps for its operators, made on first use: a model of shapes alone, in a process without libtorch, has
/// numbers too.
/// </summary>
internal sealed class KeptScalar
{
    private readonly Func<Scalar> _make;
    private Scalar? _scalar;

    public KeptScalar(double value) => _make = () => value.ToScalar();

    /// <summary>A whole number, for tensors of whole numbers.</summary>
    public KeptScalar(long value) => _make = () => value.ToScalar();

    public static implicit operator Scalar(KeptScalar kept) => kept._scalar ?? kept.Make();

    /// <summary>Threads that come first together get one and the same: a second would be collected while a native call still reads it.</summary>
    private Scalar Make()
    {
        var made = _make();
        if (Interlocked.CompareExchange(ref _scalar, made, null) is not { } first)
        {
            return made;
        }

        made.Dispose();
        return first;
    }
}

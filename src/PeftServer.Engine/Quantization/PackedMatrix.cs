namespace PeftServer.Engine.Quantization;

/// <summary>
/// A frozen matrix [rows, columns] kept in few bits. Any code can have it as numbers (<see cref="Decode"/>); the hand-written step reads
/// the codes themselves.
/// </summary>
public abstract class PackedMatrix(int rows, int columns, ScalarType dtype) : IDisposable
{
    public int Rows { get; } = rows;

    public int Columns { get; } = columns;

    /// <summary>The type of what it decodes to.</summary>
    public ScalarType Dtype { get; } = dtype;

    /// <summary>What the training settings call it.</summary>
    public abstract BaseQuantization Kind { get; }

    /// <summary>The numbers, as a new tensor [rows, columns] of the caller's scope.</summary>
    public abstract Tensor Decode();

    /// <summary>Packs a matrix, on the device it is on. Throws for <see cref="BaseQuantization.None"/>.</summary>
    public static PackedMatrix Pack(Tensor weight, BaseQuantization kind) => kind switch
    {
        BaseQuantization.Nf4 => Nf4Matrix.Quantize(weight),
        BaseQuantization.Fp8 => Fp8Matrix.Quantize(weight),
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "This is no quantization."),
    };

    public void Dispose()
    {
        Release();
        GC.SuppressFinalize(this);
    }

    protected abstract void Release();
}

/// <summary>In what the frozen matrices of a base model are held while an adapter trains.</summary>
public enum BaseQuantization
{
    /// <summary>As they are.</summary>
    None,

    /// <summary>4-bit NormalFloat in blocks of 64: QLoRA (<see href="https://arxiv.org/abs/2305.14314"/>). A quarter of bfloat16's memory.</summary>
    Nf4,

    /// <summary>
    /// 8-bit floats (e4m3) with a scale to a row. On GPUs that have them the products take 8-bit activations too and are about
    /// 1.8 times as fast as bfloat16's.
    /// </summary>
    Fp8,
}

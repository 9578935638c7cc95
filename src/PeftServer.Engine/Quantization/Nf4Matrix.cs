using PeftServer.Engine.Native;

namespace PeftServer.Engine.Quantization;

/// <summary>
/// 4-bit NormalFloat as bitsandbytes lays it out: the matrix flattened row by row and cut into blocks (they may cross rows, the last may
/// be short), each with the largest of its absolute values; byte i holds value 2i in its high half and 2i + 1 in its low half.
/// Blocks' maxima are float32 (no double quantization).
/// </summary>
public sealed class Nf4Matrix : PackedMatrix
{
    /// <summary>Values to a maximum, unless said otherwise.</summary>
    public const int DefaultBlockSize = 64;

    /// <summary>What the sixteen codes mean, in units of the block's maximum.</summary>
    public static IReadOnlyList<float> Table { get; } =
    [
        -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
        -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
        0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
    ];

    /// <summary>Values that are coded at a time: what coding takes beside the matrix stays small.</summary>
    private const int Chunk = 1 << 24;

    private static readonly KeptScalar Sixteen = new(16L);

    /// <summary>Takes over the tensors: codes uint8 [⌈n/2⌉], absMax float32 [⌈n/blockSize⌉] for n = rows · columns.</summary>
    public Nf4Matrix(Tensor codes, Tensor absMax, int rows, int columns, ScalarType dtype, int blockSize = DefaultBlockSize)
        : base(rows, columns, dtype)
    {
        var count = (long)rows * columns;
        if (codes.numel() != (count + 1) / 2 || absMax.numel() != (count + blockSize - 1) / blockSize)
        {
            throw new ArgumentException($"{codes.numel()} bytes and {absMax.numel()} maxima are not [{rows}, {columns}] in blocks of {blockSize}.");
        }

        (Codes, AbsMax, BlockSize) = (codes.DetachFromDisposeScope(), absMax.DetachFromDisposeScope(), blockSize);
    }

    public override BaseQuantization Kind => BaseQuantization.Nf4;

    public Tensor Codes { get; }

    public Tensor AbsMax { get; }

    public int BlockSize { get; }

    /// <summary>Codes a floating-point matrix: nearest entry of the table, at a tie the lower one; a block of zeros stays zeros.</summary>
    public static Nf4Matrix Quantize(Tensor weight, int blockSize = DefaultBlockSize)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var (rows, columns, count) = ((int)weight.size(0), (int)weight.size(1), weight.numel());
        var middles = Table.Zip(Table.Skip(1), (low, high) => (float)(((double)low + high) / 2)).ToArray();
        var boundaries = tensor(middles, device: weight.device);
        var flat = weight.contiguous().view(-1);
        var codes = empty((count + 1) / 2, dtype: ScalarType.Byte, device: weight.device);
        var absMax = empty((count + blockSize - 1) / blockSize, dtype: ScalarType.Float32, device: weight.device);

        var size = Chunk / (2L * blockSize) * (2L * blockSize); // whole blocks and whole bytes
        for (var start = 0L; start < count; start += size)
        {
            using var inner = NewDisposeScope();
            var length = Math.Min(size, count - start);
            var blocks = Blocks(flat.narrow(0, start, length).to(ScalarType.Float32), blockSize); // [b, blockSize]
            var highest = blocks.abs().amax([1]); // [b]
            var inverse = highest.reciprocal().masked_fill_(highest.eq(TensorArithmetic.Zero), TensorArithmetic.Zero);
            var nearest = bucketize(blocks.mul(inverse.unsqueeze(1)), boundaries, outInt32: true, right: false).to(ScalarType.Byte).view(-1);
            var pairs = nearest.narrow(0, 0, length + (length & 1)).view(-1, 2); // an odd count takes a zero of the padding
            codes.narrow(0, start / 2, (length + 1) / 2).copy_(pairs.select(1, 0).mul(Sixteen).bitwise_or_(pairs.select(1, 1)));
            absMax.narrow(0, start / blockSize, highest.size(0)).copy_(highest);
        }

        return new Nf4Matrix(codes.MoveToOuterDisposeScope(), absMax.MoveToOuterDisposeScope(), rows, columns, weight.dtype, blockSize);
    }

    /// <inheritdoc/>
    public override Tensor Decode()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var count = (long)Rows * Columns;
        var pairs = Enumerable.Range(0, 256).SelectMany(code => new[] { Table[code >> 4], Table[code & 15] }).ToArray();
        var table = tensor(pairs, device: Codes.device).view(256, 2);
        var values = table.index_select(0, Codes.to(ScalarType.Int32)).view(-1).narrow(0, 0, count);
        var scaled = Blocks(values, BlockSize).mul(AbsMax.unsqueeze(1)).view(-1).narrow(0, 0, count);
        return scaled.view(Rows, Columns).to(Dtype).MoveToOuterDisposeScope(); // [rows, columns]
    }

    protected override void Release()
    {
        Codes.Dispose();
        AbsMax.Dispose();
    }

    /// <summary>[n] as [blocks, blockSize], filled up with zeros.</summary>
    private static Tensor Blocks(Tensor flat, int blockSize)
    {
        var missing = (blockSize - (flat.numel() % blockSize)) % blockSize;
        return (missing == 0 ? flat : F.pad(flat, [0, missing])).view(-1, blockSize);
    }
}

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>Decodes whole blocks of a row.</summary>
internal delegate void GgufDecoder(ReadOnlySpan<byte> blocks, Span<float> values);

/// <summary>How values lie in a GGUF file.</summary>
/// <param name="Name">ggml's name.</param>
/// <param name="BlockSize">Values of a block.</param>
/// <param name="BlockBytes">Bytes of a block.</param>
/// <param name="Decode">Blocks to float32.</param>
/// <param name="Plain">The same type in libtorch; null: the values are in blocks.</param>
internal sealed record GgufType(string Name, int BlockSize, int BlockBytes, GgufDecoder Decode, ScalarType? Plain = null)
{
    private static readonly Dictionary<uint, GgufType> ByNumber = new()
    {
        [0] = new("F32", 1, 4, PlainBlocks.F32, ScalarType.Float32),
        [1] = new("F16", 1, 2, PlainBlocks.F16, ScalarType.Float16),
        [30] = new("BF16", 1, 2, PlainBlocks.Bf16, ScalarType.BFloat16),
        [2] = new("Q4_0", 32, 18, SmallBlocks.Q40),
        [3] = new("Q4_1", 32, 20, SmallBlocks.Q41),
        [6] = new("Q5_0", 32, 22, SmallBlocks.Q50),
        [7] = new("Q5_1", 32, 24, SmallBlocks.Q51),
        [8] = new("Q8_0", 32, 34, SmallBlocks.Q80),
        [20] = new("IQ4_NL", 32, 18, SmallBlocks.Iq4Nl),
        [10] = new("Q2_K", 256, 84, SuperBlocks.Q2K),
        [11] = new("Q3_K", 256, 110, SuperBlocks.Q3K),
        [12] = new("Q4_K", 256, 144, SuperBlocks.Q4K),
        [13] = new("Q5_K", 256, 176, SuperBlocks.Q5K),
        [14] = new("Q6_K", 256, 210, SuperBlocks.Q6K),
        [23] = new("IQ4_XS", 256, 136, SuperBlocks.Iq4Xs),
        [16] = new("IQ2_XXS", 256, 66, CodebookBlocks.Iq2Xxs),
        [17] = new("IQ2_XS", 256, 74, CodebookBlocks.Iq2Xs),
        [22] = new("IQ2_S", 256, 82, CodebookBlocks.Iq2S),
        [18] = new("IQ3_XXS", 256, 98, CodebookBlocks.Iq3Xxs),
        [21] = new("IQ3_S", 256, 110, CodebookBlocks.Iq3S),
        [19] = new("IQ1_S", 256, 50, CodebookBlocks.Iq1S),
        [29] = new("IQ1_M", 256, 56, CodebookBlocks.Iq1M),
        [34] = new("TQ1_0", 256, 54, TernaryBlocks.Tq10),
        [35] = new("TQ2_0", 256, 66, TernaryBlocks.Tq20),
        [39] = new("MXFP4", 32, 17, SmallBlocks.Mxfp4),
    };

    /// <summary>Names of the types that can be decoded.</summary>
    public static IEnumerable<string> Names => ByNumber.Values.Select(type => type.Name);

    /// <summary>The type by its number in the file; null for one that is not decoded.</summary>
    public static GgufType? Of(uint number) => ByNumber.GetValueOrDefault(number);
}

/// <summary>Values that each stand by themselves.</summary>
internal static class PlainBlocks
{
    public static void F32(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = BitConverter.ToSingle(blocks.Slice(4 * i, 4));
        }
    }

    public static void F16(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = Half(blocks, 2 * i);
        }
    }

    public static void Bf16(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = BitConverter.UInt32BitsToSingle((uint)BitConverter.ToUInt16(blocks.Slice(2 * i, 2)) << 16);
        }
    }

    /// <summary>The float16 at a place.</summary>
    public static float Half(ReadOnlySpan<byte> bytes, int at) => (float)BitConverter.ToHalf(bytes.Slice(at, 2));
}

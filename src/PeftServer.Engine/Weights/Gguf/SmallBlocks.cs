using static PeftServer.Engine.Weights.Gguf.PlainBlocks;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>Blocks of 32 values under one scale: value j in the low half of byte j, value j + 16 in its high half.</summary>
internal static class SmallBlocks
{
    /// <summary>The sixteen levels of IQ4: closer together near zero.</summary>
    internal static readonly sbyte[] Levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    /// <summary>Twice the sixteen values of a four-bit float.</summary>
    private static readonly sbyte[] Fp4Levels = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    public static void Q40(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 18, values = values[32..])
        {
            var d = Half(blocks, at);
            var codes = blocks.Slice(at + 2, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = d * ((codes[j] & 15) - 8);
                values[j + 16] = d * ((codes[j] >> 4) - 8);
            }
        }
    }

    public static void Q41(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 20, values = values[32..])
        {
            var (d, m) = (Half(blocks, at), Half(blocks, at + 2));
            var codes = blocks.Slice(at + 4, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = (d * (codes[j] & 15)) + m;
                values[j + 16] = (d * (codes[j] >> 4)) + m;
            }
        }
    }

    public static void Q50(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 22, values = values[32..])
        {
            var (d, high) = (Half(blocks, at), BitConverter.ToUInt32(blocks.Slice(at + 2, 4)));
            var codes = blocks.Slice(at + 6, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = d * (((codes[j] & 15) | Fifth(high, j)) - 16);
                values[j + 16] = d * (((codes[j] >> 4) | Fifth(high, j + 16)) - 16);
            }
        }
    }

    public static void Q51(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 24, values = values[32..])
        {
            var (d, m) = (Half(blocks, at), Half(blocks, at + 2));
            var high = BitConverter.ToUInt32(blocks.Slice(at + 4, 4));
            var codes = blocks.Slice(at + 8, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = (d * ((codes[j] & 15) | Fifth(high, j))) + m;
                values[j + 16] = (d * ((codes[j] >> 4) | Fifth(high, j + 16))) + m;
            }
        }
    }

    public static void Q80(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 34, values = values[32..])
        {
            var d = Half(blocks, at);
            for (var j = 0; j < 32; j++)
            {
                values[j] = d * (sbyte)blocks[at + 2 + j];
            }
        }
    }

    public static void Iq4Nl(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 18, values = values[32..])
        {
            var d = Half(blocks, at);
            var codes = blocks.Slice(at + 2, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = d * Levels[codes[j] & 15];
                values[j + 16] = d * Levels[codes[j] >> 4];
            }
        }
    }

    /// <summary>Four-bit floats (1 sign, 2 exponent, 1 fraction) under a power of two: MXFP4 of the Open Compute Project.</summary>
    public static void Mxfp4(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 17, values = values[32..])
        {
            var d = MathF.ScaleB(1, blocks[at] - 128); // of the doubled levels
            var codes = blocks.Slice(at + 1, 16);
            for (var j = 0; j < 16; j++)
            {
                values[j] = d * Fp4Levels[codes[j] & 15];
                values[j + 16] = d * Fp4Levels[codes[j] >> 4];
            }
        }
    }

    private static int Fifth(uint high, int bit) => (int)(high >> bit & 1) << 4;
}

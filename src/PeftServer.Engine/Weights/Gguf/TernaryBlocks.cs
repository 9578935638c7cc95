using static PeftServer.Engine.Weights.Gguf.PlainBlocks;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>Blocks of 256 values that are -1, 0 or 1 under one scale.</summary>
internal static class TernaryBlocks
{
    /// <summary>Five values a byte, as the digits of a fraction to base 3; four in the last four bytes.</summary>
    public static void Tq10(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 54, values = values[256..])
        {
            var d = Half(blocks, at + 52);
            Digits(blocks.Slice(at, 32), 5, d, values);
            Digits(blocks.Slice(at + 32, 16), 5, d, values[160..]);
            Digits(blocks.Slice(at + 48, 4), 4, d, values[240..]);
        }
    }

    /// <summary>Two bits a value.</summary>
    public static void Tq20(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 66, values = values[256..])
        {
            var d = Half(blocks, at + 64);
            for (var i = 0; i < 256; i++)
            {
                var (half, turn, place) = (i >> 7, i >> 5 & 3, i & 31);
                values[i] = d * ((blocks[at + (32 * half) + place] >> (2 * turn) & 3) - 1);
            }
        }
    }

    private static void Digits(ReadOnlySpan<byte> codes, int digits, float d, Span<float> values)
    {
        for (var j = 0; j < codes.Length; j++)
        {
            var rest = codes[j];
            for (var digit = 0; digit < digits; digit++)
            {
                values[(codes.Length * digit) + j] = d * ((rest * 3 >> 8) - 1);
                rest = (byte)(rest * 3);
            }
        }
    }
}

using System.Numerics;
using static PeftServer.Engine.Weights.Gguf.PlainBlocks;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>Blocks of 256 values whose codes name rows of a codebook: the IQ types below four bits.</summary>
internal static class CodebookBlocks
{
    private const float Shift = 0.125f;

    public static void Iq2Xxs(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 66, values = values[256..])
        {
            var d = Half(blocks, at);
            for (var group = 0; group < 8; group++)
            {
                var codes = blocks.Slice(at + 2 + (8 * group), 4);
                var word = BitConverter.ToUInt32(blocks.Slice(at + 6 + (8 * group), 4)); // four times seven signs, and the scale
                for (var i = 0; i < 4; i++)
                {
                    Put(values[((32 * group) + (8 * i))..], Codebooks.Iq2Xxs, codes[i], 8, d * (0.5f + (word >> 28)) * 0.25f, Signs(word >> 7 * i));
                }
            }
        }
    }

    public static void Iq2Xs(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 74, values = values[256..])
        {
            var d = Half(blocks, at);
            var scales = blocks.Slice(at + 66, 8);
            for (var i = 0; i < 32; i++)
            {
                var code = BitConverter.ToUInt16(blocks.Slice(at + 2 + (2 * i), 2));
                Put(values[(8 * i)..], Codebooks.Iq2Xs, code & 511, 8, d * (0.5f + Nibble(scales, i >> 1)) * 0.25f, Signs((uint)code >> 9));
            }
        }
    }

    public static void Iq2S(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 82, values = values[256..])
        {
            var d = Half(blocks, at);
            var codes = blocks.Slice(at + 2, 32);
            var signs = blocks.Slice(at + 34, 32);
            var high = blocks.Slice(at + 66, 8);
            var scales = blocks.Slice(at + 74, 8);
            for (var i = 0; i < 32; i++)
            {
                var code = codes[i] | (high[i >> 2] >> (2 * (i & 3)) & 3) << 8;
                Put(values[(8 * i)..], Codebooks.Iq2S, code, 8, d * (0.5f + Nibble(scales, i >> 1)) * 0.25f, signs[i]);
            }
        }
    }

    public static void Iq3Xxs(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 98, values = values[256..])
        {
            var d = Half(blocks, at);
            var codes = blocks.Slice(at + 2, 64);
            for (var i = 0; i < 32; i++)
            {
                var word = BitConverter.ToUInt32(blocks.Slice(at + 66 + (4 * (i >> 2)), 4));
                PutTwo(values[(8 * i)..], Codebooks.Iq3Xxs, codes[2 * i], codes[(2 * i) + 1], d * (0.5f + (word >> 28)) * 0.5f, Signs(word >> 7 * (i & 3)));
            }
        }
    }

    public static void Iq3S(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 110, values = values[256..])
        {
            var d = Half(blocks, at);
            var codes = blocks.Slice(at + 2, 64);
            var high = blocks.Slice(at + 66, 8);
            var signs = blocks.Slice(at + 74, 32);
            var scales = blocks.Slice(at + 106, 4);
            for (var i = 0; i < 32; i++)
            {
                var ninth = high[i >> 2] >> (2 * (i & 3));
                var (first, second) = (codes[2 * i] | (ninth & 1) << 8, codes[(2 * i) + 1] | (ninth >> 1 & 1) << 8);
                PutTwo(values[(8 * i)..], Codebooks.Iq3S, first, second, d * (1 + (2 * Nibble(scales, i >> 2))), signs[i]);
            }
        }
    }

    public static void Iq1S(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 50, values = values[256..])
        {
            var d = Half(blocks, at);
            for (var i = 0; i < 32; i++)
            {
                var word = BitConverter.ToUInt16(blocks.Slice(at + 34 + (2 * (i >> 2)), 2)); // four times three bits of codes, the scale, the shift's sign
                var code = blocks[at + 2 + i] | (word >> (3 * (i & 3)) & 7) << 8;
                PutShifted(values[(8 * i)..], code, d * ((2 * (word >> 12 & 7)) + 1), (word & 0x8000) == 0 ? Shift : -Shift);
            }
        }
    }

    public static void Iq1M(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 56, values = values[256..])
        {
            var codes = blocks.Slice(at, 32);
            var high = blocks.Slice(at + 32, 16);
            var scales = blocks.Slice(at + 48, 8);

            // The scale of all lies in the upper four bits of four words, whose others are scales of groups.
            ushort Word(ReadOnlySpan<byte> words, int i) => BitConverter.ToUInt16(words.Slice(2 * i, 2));
            var bits = (Word(scales, 0) >> 12) | (Word(scales, 1) >> 12 << 4) | (Word(scales, 2) >> 12 << 8) | (Word(scales, 3) >> 12 << 12);
            var d = (float)BitConverter.UInt16BitsToHalf((ushort)bits);
            for (var i = 0; i < 32; i++)
            {
                var (group, four) = (i >> 1, Nibble(high, i));
                var scale = d * ((2 * (Word(scales, group >> 2) >> (3 * (group & 3)) & 7)) + 1);
                PutShifted(values[(8 * i)..], codes[i] | (four & 7) << 8, scale, (four & 8) == 0 ? Shift : -Shift);
            }
        }
    }

    private static void Put(Span<float> values, sbyte[] rows, int code, int width, float scale, int signs)
    {
        for (var i = 0; i < width; i++)
        {
            values[i] = (signs >> i & 1) == 0 ? scale * rows[(width * code) + i] : -scale * rows[(width * code) + i];
        }
    }

    private static void PutTwo(Span<float> values, sbyte[] rows, int first, int second, float scale, int signs)
    {
        Put(values, rows, first, 4, scale, signs);
        Put(values[4..], rows, second, 4, scale, signs >> 4);
    }

    private static void PutShifted(Span<float> values, int code, float scale, float shift)
    {
        for (var i = 0; i < 8; i++)
        {
            values[i] = scale * (Codebooks.Iq1[(8 * code) + i] + shift);
        }
    }

    /// <summary>Seven signs, and an eighth that makes the number of minuses even.</summary>
    private static int Signs(uint word) => (int)(word & 127) | (BitOperations.PopCount(word & 127) & 1) << 7;

    private static int Nibble(ReadOnlySpan<byte> bytes, int i) => bytes[i >> 1] >> (4 * (i & 1)) & 15;
}

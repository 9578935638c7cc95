using static PeftServer.Engine.Weights.Gguf.PlainBlocks;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>Blocks of 256 values: a scale for all, and small scales for groups of 16 or 32 of them.</summary>
internal static class SuperBlocks
{
    public static void Q2K(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 84, values = values[256..])
        {
            var scales = blocks.Slice(at, 16);
            var codes = blocks.Slice(at + 16, 64);
            var (d, dmin) = (Half(blocks, at + 80), Half(blocks, at + 82));
            for (var i = 0; i < 256; i++)
            {
                var (half, turn, place) = (i >> 7, i >> 5 & 3, i & 31);
                var scale = scales[i >> 4];
                values[i] = (d * (scale & 15) * (codes[(32 * half) + place] >> 2 * turn & 3)) - (dmin * (scale >> 4));
            }
        }
    }

    public static void Q3K(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 110, values = values[256..])
        {
            var high = blocks.Slice(at, 32);
            var codes = blocks.Slice(at + 32, 64);
            var scales = blocks.Slice(at + 96, 12);
            var d = Half(blocks, at + 108);
            for (var i = 0; i < 256; i++)
            {
                var (half, turn, place, group) = (i >> 7, i >> 5 & 3, i & 31, i >> 4);
                var low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
                var scale = (low | (scales[8 + (group & 3)] >> 2 * (group >> 2) & 3) << 4) - 32;
                var code = (codes[(32 * half) + place] >> 2 * turn & 3) - ((high[place] >> (4 * half) + turn & 1) == 0 ? 4 : 0);
                values[i] = d * scale * code;
            }
        }
    }

    public static void Q4K(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 144, values = values[256..])
        {
            var (d, dmin) = (Half(blocks, at), Half(blocks, at + 2));
            var scales = blocks.Slice(at + 4, 12);
            var codes = blocks.Slice(at + 16, 128);
            for (var j = 0; j < 8; j++)
            {
                var (scale, min) = ScaleAndMin(scales, j);
                var (step, least) = (d * scale, dmin * min);
                for (var l = 0; l < 32; l++)
                {
                    values[(32 * j) + l] = (step * Nibble(codes[(32 * (j >> 1)) + l], j)) - least;
                }
            }
        }
    }

    public static void Q5K(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 176, values = values[256..])
        {
            var (d, dmin) = (Half(blocks, at), Half(blocks, at + 2));
            var scales = blocks.Slice(at + 4, 12);
            var high = blocks.Slice(at + 16, 32);
            var codes = blocks.Slice(at + 48, 128);
            for (var j = 0; j < 8; j++)
            {
                var (scale, min) = ScaleAndMin(scales, j);
                var (step, least) = (d * scale, dmin * min);
                for (var l = 0; l < 32; l++)
                {
                    values[(32 * j) + l] = (step * (Nibble(codes[(32 * (j >> 1)) + l], j) | (high[l] >> j & 1) << 4)) - least;
                }
            }
        }
    }

    public static void Q6K(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 210, values = values[256..])
        {
            var d = Half(blocks, at + 208);
            var low = blocks.Slice(at, 128);
            var high = blocks.Slice(at + 128, 64);
            var scales = blocks.Slice(at + 192, 16);
            for (var i = 0; i < 256; i++)
            {
                var (half, turn, place) = (i >> 7, i >> 5 & 3, i & 31);
                var four = low[(64 * half) + (32 * (turn & 1)) + place];
                var code = ((turn < 2 ? four & 15 : four >> 4) | (high[(32 * half) + place] >> 2 * turn & 3) << 4) - 32;
                values[i] = d * (sbyte)scales[(8 * half) + (2 * turn) + (place >> 4)] * code;
            }
        }
    }

    public static void Iq4Xs(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (var at = 0; values.Length > 0; at += 136, values = values[256..])
        {
            var (d, high) = (Half(blocks, at), BitConverter.ToUInt16(blocks.Slice(at + 2, 2)));
            var low = blocks.Slice(at + 4, 4);
            var codes = blocks.Slice(at + 8, 128);
            for (var j = 0; j < 8; j++)
            {
                var scale = d * (((low[j >> 1] >> 4 * (j & 1) & 15) | (high >> 2 * j & 3) << 4) - 32);
                for (var l = 0; l < 16; l++)
                {
                    values[(32 * j) + l] = scale * SmallBlocks.Levels[codes[(16 * j) + l] & 15];
                    values[(32 * j) + 16 + l] = scale * SmallBlocks.Levels[codes[(16 * j) + l] >> 4];
                }
            }
        }
    }

    /// <summary>Six bits each of scale and minimum of group j, packed into twelve bytes.</summary>
    private static (int Scale, int Min) ScaleAndMin(ReadOnlySpan<byte> s, int j) => j < 4
        ? (s[j] & 63, s[j + 4] & 63)
        : ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4);

    /// <summary>Even groups are the low halves of the bytes, odd groups the high ones.</summary>
    private static int Nibble(byte code, int group) => (group & 1) == 0 ? code & 15 : code >> 4;
}

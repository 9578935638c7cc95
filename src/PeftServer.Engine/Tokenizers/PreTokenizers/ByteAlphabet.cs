namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>GPT-2's printable stand-ins for the 256 bytes: visible Latin-1 stays itself, the rest moves to U+0100 and up.</summary>
internal static class ByteAlphabet
{
    private static readonly char[] ToChar = Build();
    private static readonly short[] ToByte = Invert(ToChar);

    public static char CharOf(byte value) => ToChar[value];

    /// <summary>The byte that <paramref name="c"/> stands for, or −1.</summary>
    public static int ByteOf(char c) => c < ToByte.Length ? ToByte[c] : -1;

    public static bool IsVisible(int value) => value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);

    private static char[] Build()
    {
        var map = new char[256];
        var next = 256;
        for (var b = 0; b < 256; b++)
        {
            map[b] = (char)(IsVisible(b) ? b : next++);
        }

        return map;
    }

    private static short[] Invert(char[] map)
    {
        var inverse = new short[map.Max() + 1];
        Array.Fill(inverse, (short)-1);
        for (var b = 0; b < map.Length; b++)
        {
            inverse[map[b]] = (short)b;
        }

        return inverse;
    }
}

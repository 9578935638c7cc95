using System.Globalization;
using System.Text;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>Texts that tokenizers stumble over, and random ones of code points that Unicode 15 knows.</summary>
internal static class RandomTexts
{
    public static readonly string[] Varied =
    [
        "", " ", "\n", "Hello world", "  leading and trailing  ", "It's we'll I'M they'VE don't 'S 'ſ", "1234567890 3.14 1,000,000 2024-01-02",
        "naïve café résumé Ångström", "nai\u0308ve cafe\u0301 q\u0323\u0307 \u1E0B\u0323", "ﬁnance ① ㍿ ½ ™ ﷺ", "Привет, мир! Γειά σου ΣΑΣ", "日本語のテキスト 中文字符 한국어 ｶﾞ が",
        "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷", "𝒳𝓎𝔃 𐍈 𠜎𠜱", "مرحبا بالعالم שלום עולם", "def f(x):\n\treturn x ** 2  # ok\r\n\r\n", "a\u0000b\u0001\u007F\u0085\u00AD\uFEFF\u200B\u200D",
        "tabs\t\tand\u00A0nbsp\u2003em\u3000ideographic", "<|im_start|>user\nhi<|im_end|>", "<|begin_of_text|><|eot_id|> <s></s> [CLS] [MASK]", "ÀÁÂ İıſK ẞß ŉ ǰ",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "              x", "...!!!???---___***",
        "ส​วัสดี हिन्दी தமிழ் ខ្មែរ မြန်မာ", "▁▁a ▁b", "\uFFFD\uFFFDx", "half\nlines\n\n\nmore \n \n", "don´t `quoted` “curly” ‘single’ «guillemets»", "x\u0345\u0300\u0301\u0327y",
    ];

    // Assigned since Unicode 15: tables of other libraries do not know them.
    private static readonly (int First, int Last)[] Newer =
    [
        (0x897, 0x897), (0xC5C, 0xC5C), (0xCDC, 0xCDC), (0x1ACF, 0x1AFF), (0x1B4E, 0x1B4F), (0x1B7F, 0x1B7F), (0x1C89, 0x1C8A), (0x20C1, 0x20C1), (0x2427, 0x2429), (0x2B96, 0x2B96),
        (0x2FFC, 0x2FFF), (0x31E4, 0x31E5), (0x31EF, 0x31EF), (0xA7CB, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7DA, 0xA7DC), (0xA7F1, 0xA7F1), (0xFBC3, 0xFBD2), (0xFD90, 0xFD91), (0xFDC8, 0xFDCE),
        (0x105C0, 0x105FF), (0x10940, 0x1095F), (0x10D40, 0x10D8F), (0x10EC2, 0x10EFC), (0x11380, 0x113FF), (0x116D0, 0x116E3), (0x11B60, 0x11B67), (0x11BC0, 0x11BF9), (0x11DB0, 0x11DE9), (0x11F5A, 0x11F5A),
        (0x13460, 0x143FA), (0x16100, 0x16139), (0x16D40, 0x16D79), (0x16EA0, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18CFF, 0x18CFF), (0x18D09, 0x18DFF),
        (0x1CC00, 0x1CEFF), (0x1E5D0, 0x1E5FF), (0x1E6C0, 0x1E6FF), (0x1F6D8, 0x1F6D8), (0x1F777, 0x1F77A), (0x1F8B2, 0x1F8D8), (0x1FA54, 0x1FA57), (0x1FA89, 0x1FA8F), (0x1FABE, 0x1FABF), (0x1FAC6, 0x1FACF), (0x1FADC, 0x1FADF), (0x1FAE9, 0x1FAEF),
        (0x1FBCB, 0x1FBEF), (0x1FBFA, 0x1FBFA), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x2EBF0, 0x2EE5D), (0x323B0, 0x33479),
    ];

    // Marks, punctuation, format characters and characters with decompositions that came after Unicode 8, and those that
    // changed category since (first line). The Rust library's
    // tables for normalisation and general categories end at Unicode 9 and 8 (unicode-normalization-alignments,
    // unicode_categories), ours do not: it takes these for letters without decomposition, in BERT's and Unicode's normalisers,
    // in StripAccents and at punctuation. Nothing else is known to differ.
    private const string AfterUnicode8 = """
        166D 1734 1885-1886 1CF2-1CF3 A9BD 11720-11721
        61D 7FD 890-891 898-89F 8CA-8E2 9FD-9FE A76 AFA-AFF B55 C04 C3C C77 C84 CF3 D00 D3B-D3C D81 EBA ECE 1715 180F 1ABF-1ACE
        1B7D-1B7E 1CF7 1DF6-1DFB 2E43-2E4F 2E52-2E5D 32FF A7F2-A7F4 A82C A8C5 A8FF AB69 10781-10785 10787-107B0 107B2-107BA
        10D24-10D27 10EAB-10EAD 10EFD-10EFF 10F46-10F50 10F55-10F59 10F82-10F89 11070 11073-11074 110C2 110CD 11145-11146
        111CE-111CF 1123E 11240-11241 1133B 11435-11446 1144B-1144F 1145A-1145B 1145D-1145E 11660-1166C 116B9 1182C-1183B
        11930-11935 11937-11938 1193B-1193E 11940 11942-11946 119D1-119D7 119DA-119E0 119E2 119E4 11A01-11A0A 11A33-11A39
        11A3B-11A47 11A51-11A5B 11A8A-11A9C 11A9E-11AA2 11B00-11B09 11C2F-11C36 11C38-11C3F 11C41-11C45 11C70-11C71 11C92-11CA7
        11CA9-11CB6 11D31-11D36 11D3A 11D3C-11D3D 11D3F-11D45 11D47 11D8A-11D8E 11D90-11D91 11D93-11D97 11EF3-11EF8 11F00-11F59
        11FFF 12FF1-12FF2 13430-13455 16E97-16E9A 16F4F 16F7F-16F87 16FE2 16FE4 16FF0-16FF1 1CF00-1CF2D 1CF30-1CF46 1E000-1E006
        1E008-1E018 1E01B-1E021 1E023-1E024 1E026-1E02A 1E030-1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF 1E944-1E94A
        1E95E-1E95F 1F16C 1F23B 1FBF0-1FBF9
        """;

    private static readonly HashSet<int> Unknown = [.. AfterUnicode8.Split([' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries).SelectMany(run =>
    {
        var ends = run.Split('-').Select(c => int.Parse(c, NumberStyles.HexNumber, CultureInfo.InvariantCulture)).ToArray();
        return Enumerable.Range(ends[0], ends[^1] - ends[0] + 1);
    })];

    private static readonly int[] Assigned = [.. Enumerable.Range(0, 0xE0200).Where(IsAssigned)];

    public static List<string> Random(int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => One(random))];
    }

    /// <summary>The text with a letter in place of what the Rust library's tables are too old for.</summary>
    public static string WithoutNewer(string text) => string.Concat(text.EnumerateRunes().Select(r => Unknown.Contains(r.Value) ? "x" : r.ToString()));

    private static string One(Random random)
    {
        var text = new StringBuilder();
        var length = random.Next(1, 30);
        var block = Assigned[random.Next(Assigned.Length)] & ~0x7F;
        for (var i = 0; i < length; i++)
        {
            var c = random.Next(8) switch
            {
                0 or 1 => random.Next(0x20, 0x7F),
                2 => " \n\t'\r  "[random.Next(7)],
                3 => random.Next(0x300, 0x370),
                4 => random.Next(0xA0, 0x250),
                5 => block + random.Next(0x80),
                _ => Assigned[random.Next(Assigned.Length)],
            };
            text.Append(IsAssigned(c) ? char.ConvertFromUtf32(c) : "x");
        }

        return text.ToString();
    }

    private static bool IsAssigned(int c) =>
        CharUnicodeInfo.GetUnicodeCategory(c) is not (UnicodeCategory.OtherNotAssigned or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse)
        && !Array.Exists(Newer, range => c >= range.First && c <= range.Last);
}

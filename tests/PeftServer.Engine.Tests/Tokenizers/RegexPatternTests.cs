using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.Patterns;

namespace PeftServer.Engine.Tests.Tokenizers;

public sealed class RegexPatternTests
{
    [Theory]
    [InlineData("a+b", "aab ab b", "aab|ab")]
    [InlineData("a+?", "aaa", "a|a|a")]
    [InlineData("a{2,3}", "aaaaa", "aaa|aa")]
    [InlineData("(?:ab|a)(?=c)", "abc ac ab", "ab|a")]
    [InlineData("(?<=a|bc)x", "ax bcx cx", "x|x")]
    [InlineData("(?<!a)x", "ax bx", "x")]
    [InlineData("a++a|b", "aab", "b")]
    [InlineData("(?>a+)b|a", "aac", "a|a")]
    [InlineData("(?i:'s|É)x", "'Sx éx 'ſx 'tx", "'Sx|éx|'ſx")]
    [InlineData("[a-c&&[^b]]+", "abca", "a|ca")]
    [InlineData("[^\\s\\p{L}]+", "ab 12, x!", "12,|!")]
    [InlineData("\\p{Han}+|\\p{Lu}", "aB漢字cか", "B|漢字")]
    [InlineData("\\p{L}+", "a𝒳𐍈b 1", "a𝒳𐍈b")]
    [InlineData("[𝒳-𝒵]", "𝒲𝒳𝒵", "𝒳|𝒵")]
    [InlineData("^a|b$", "a\nab\nb", "a|a|b|b")]
    [InlineData("\\bfoo\\b", "foo food foo", "foo|foo")]
    [InlineData("(a|b)*c", "ababc c", "ababc|c")]
    [InlineData("(?:a*)*b", "aab", "aab")]
    [InlineData("x*", "axx", "|xx")]
    [InlineData("[[:punct:]]+|[[:^alpha:]]", "a,.b1", ",.|1")]
    [InlineData("\\x{1F600}|\\u00e9|\\t", "😀é\t", "😀|é|\t")]
    [InlineData("a.c", "a\nc abc", "abc")]
    [InlineData("(?m:a.c)", "a\nc", "a\nc")]
    [InlineData("a{,2}b", "aaab", "aab")]
    [InlineData("a{x}", "a{x}", "a{x}")]
    [InlineData("(?x) a b # comment", "ab", "ab")]
    public void FindAll_Pattern_MatchesAsOnigurumaDoes(string pattern, string text, string expected) =>
        Matches(pattern, text).ShouldBe(expected);

    [Theory]
    [InlineData("(a", "')'")]
    [InlineData("a)", "')'")]
    [InlineData("[a", "']'")]
    [InlineData("(a)\\1", "\\1")]
    [InlineData("*a", "nothing before")]
    [InlineData("\\p{Klingon}", "Klingon")]
    [InlineData("(?<=a+)b", "without a limit")]
    [InlineData("(((a{1000}){1000}){1000})", "too large")]
    public void RegexPattern_NotSupported_SaysWhat(string pattern, string message) =>
        Should.Throw<TokenizerException>(() => new RegexPattern(pattern)).Message.ShouldContain(message);

    [Theory]
    [InlineData("(a+)+$")]
    [InlineData("(a|aa)*c")]
    [InlineData("(\\w*)*\\d")]
    public void FindAll_PatternThatExplodes_IsStopped(string pattern) =>
        Should.Throw<TokenizerException>(() => Matches(pattern, new string('a', 60) + "!")).Message.ShouldContain("too long");

    [Fact]
    public void FindAll_Gpt2Pattern_AgreesWithTheOneByHand()
    {
        var pattern = new RegexPattern("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+");
        foreach (var text in RandomTexts.Varied.Concat(RandomTexts.Random(2000, seed: 3)))
        {
            var matches = new List<(int Start, int End)>();
            pattern.FindAll(text, matches);
            var parts = new List<PeftServer.Engine.Tokenizers.PreTokenizers.TextRange>();
            PeftServer.Engine.Tokenizers.PreTokenizers.Gpt2Cutter.Instance.Cut(text, parts);

            parts.Select(p => (p.Start, p.Start + p.Length)).ShouldBe(matches, text);
        }
    }

    private static string Matches(string pattern, string text)
    {
        var matches = new List<(int Start, int End)>();
        new RegexPattern(pattern).FindAll(text, matches);
        return string.Join('|', matches.Select(m => text[m.Start..m.End]));
    }
}

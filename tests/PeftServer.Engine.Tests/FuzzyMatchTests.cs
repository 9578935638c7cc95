using PeftServer.Engine.Evaluation;

namespace PeftServer.Engine.Tests;

/// <summary>The examples in rapidfuzz's README and documentation (https://github.com/rapidfuzz/RapidFuzz, https://rapidfuzz.github.io/RapidFuzz/Usage/fuzz.html), and texts longer than a machine word.</summary>
public sealed class FuzzyMatchTests
{
    [Theory]
    [InlineData("this is a test", "this is a test!", 1)]
    [InlineData("a certain string", "cetain", 0.8333333333333334)]
    [InlineData("", "", 1)]
    [InlineData("", "a", 0)]
    public void PartialRatio_OfTheDocumentation_IsItsValue(string one, string other, double expected) => FuzzyMatch.PartialRatio(one, other).ShouldBe(expected, 1e-12);

    [Theory]
    [InlineData("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 1)]
    [InlineData("fuzzy was a bear", "fuzzy fuzzy was a bear", 0.8421052631578947)]
    public void TokenSortRatio_OfTheDocumentation_IsItsValue(string one, string other, double expected) => FuzzyMatch.TokenSortRatio(one, other).ShouldBe(expected, 1e-12);

    [Theory]
    [InlineData("fuzzy was a bear", "fuzzy fuzzy was a bear", 1)]
    [InlineData("fuzzy was a bear but not a dog", "fuzzy was a bear but not a cat", 0.923076923076923)]
    public void TokenSetRatio_OfTheDocumentation_IsItsValue(string one, string other, double expected) => FuzzyMatch.TokenSetRatio(one, other).ShouldBe(expected, 1e-12);

    [Theory]
    [InlineData("this is a test", "this is a new test!!!", 0.855)]
    [InlineData("this is a test", "this is a new test", 0.95)]
    [InlineData("this is a word", "THIS IS A WORD", 0.2142857142857143)]
    public void WeightedRatio_OfTheReadme_IsItsValue(string one, string other, double expected) => FuzzyMatch.WeightedRatio(one, other).ShouldBe(expected, 1e-12);

    /// <summary>Beyond 64 characters the bits carry from word to word: the same as the table of lengths.</summary>
    [Fact]
    public void Ratio_OfLongTexts_IsThatOfTheTable()
    {
        var random = new Random(4);
        for (var round = 0; round < 30; round++)
        {
            string Text() => string.Concat(Enumerable.Range(0, random.Next(1, 300)).Select(_ => (char)('a' + random.Next(4))));
            var (one, other) = (Text(), Text());
            FuzzyMatch.Ratio(one, other).ShouldBe(2.0 * Common(one, other) / (one.Length + other.Length), 1e-12);
            FuzzyMatch.WeightedRatio(one, other).ShouldBe(FuzzyMatch.WeightedRatio(other, one), 1e-12);
        }
    }

    private static int Common(string one, string other)
    {
        var table = new int[one.Length + 1, other.Length + 1];
        for (var i = 1; i <= one.Length; i++)
        {
            for (var j = 1; j <= other.Length; j++)
            {
                table[i, j] = one[i - 1] == other[j - 1] ? table[i - 1, j - 1] + 1 : Math.Max(table[i - 1, j], table[i, j - 1]);
            }
        }

        return table[one.Length, other.Length];
    }
}

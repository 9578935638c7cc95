using PeftServer.Engine.Reading;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Reading;

/// <summary>Tags of tokens become entities.</summary>
public sealed class TagGroupsTests
{
    private const string Text = "🦙 Ann Lee, Oslo";

    private static readonly string[] Labels = ["O", "B-PER", "I-PER", "B-LOC"];

    /// <summary>Tokens of <see cref="Text"/> as a byte-level tokenizer gives them, some with the space before them, and the tag of each.</summary>
    private static readonly (int Start, int End, int Tag, float Score)[] Tokens =
    [
        (0, 1, 0, 9), (1, 5, 1, 9), (5, 7, 2, 9), (7, 9, 0, 1), (9, 10, 0, 9), (10, 13, 3, 3), (13, 15, 1, 5),
    ];

    [Fact]
    public void Of_None_GivesEveryTokenItsTag()
    {
        var found = Of(AggregationStrategy.None);

        found.Select(tag => (tag.Label, tag.Word, tag.Start, tag.Token)).ShouldBe([("B-PER", "Ann", 2, 2), ("I-PER", "L", 6, 3), ("B-LOC", "Os", 11, 6), ("B-PER", "lo", 13, 7)]);
    }

    [Fact]
    public void Of_Simple_JoinsTokensOfOneKind() =>
        Of(AggregationStrategy.Simple).Select(group => (group.Label, group.Word)).ShouldBe([("PER", "Ann L"), ("LOC", "Os"), ("PER", "lo")]);

    [Fact]
    public void Of_First_GivesWordsTheTagOfTheirFirstToken()
    {
        var found = Of(AggregationStrategy.First);

        found.Select(group => (group.Label, group.Word, group.Start, group.End)).ShouldBe([("PER", "Ann Lee", 2, 9), ("LOC", "Oslo", 11, 15)]);
        found[0].Score.ShouldBe(Math.Exp(9) / (Math.Exp(9) + 3), 1e-6);
    }

    [Fact]
    public void Of_Max_GivesWordsTheTagOfTheirSurestToken() =>
        Of(AggregationStrategy.Max).Select(group => (group.Label, group.Word)).ShouldBe([("PER", "Ann Lee"), ("PER", "Oslo")]);

    [Fact]
    public void Of_Average_GivesWordsTheLikeliestTagByTheMean()
    {
        var found = Of(AggregationStrategy.Average);

        found.Select(group => (group.Label, group.Word)).ShouldBe([("PER", "Ann Lee"), ("PER", "Oslo")]);
        found[1].Score.ShouldBe((Share(3, 0) + Share(5, 5)) / 2, 1e-6);

        static double Share(double highest, double own) => Math.Exp(own) / (Math.Exp(highest) + 3);
    }

    private static IReadOnlyList<TagGroup> Of(AggregationStrategy strategy)
    {
        var encoding = new TokenEncoding();
        encoding.Add(2, "[CLS]", (0, 0), special: true, typeId: 0);
        foreach (var token in Tokens)
        {
            encoding.Add(5, "?", (token.Start, token.End), special: false, typeId: 0);
        }

        float[][] rows = [new float[4], .. Tokens.Select(token => Enumerable.Range(0, 4).Select(label => label == token.Tag ? token.Score : 0f).ToArray())];
        return TagGroups.Of(Text, encoding, new Engine.Reading.Reading(rows), Labels, strategy, ["O"]);
    }
}

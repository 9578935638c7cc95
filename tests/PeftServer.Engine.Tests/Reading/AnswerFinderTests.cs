using PeftServer.Engine.Reading;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Reading;

/// <summary>Answers by the scores of where they begin and end, over windows of a long text.</summary>
public sealed class AnswerFinderTests
{
    private static readonly Tokenizer Tokenizer = Tokenizer.Load(Samples.TinyLlama);

    [Fact]
    public void Best_ScoresInTheSecondWindow_GivesThatPartOfTheText()
    {
        var context = "🦙 " + string.Concat(Enumerable.Repeat("all good things come to an end ", 5));
        var finder = new AnswerFinder(Tokenizer, "What comes?", context, 40, 8);
        finder.Windows.Count.ShouldBeGreaterThan(1);
        var readings = finder.Windows.Select((window, i) => Scores(window.Ids.Length, i == 1 ? [(window.Ids.Length - 6, 8f, 0f), (window.Ids.Length - 4, 0f, 8f)] : [])).ToList();

        var best = finder.Best(readings, count: 2, longest: 5, mayBeNone: false);

        best.Count.ShouldBe(2);
        best[0].Score.ShouldBeGreaterThan(0.9);
        best[0].Score.ShouldBeGreaterThan(best[1].Score);
        var runes = context.EnumerateRunes().ToArray();
        best[0].Text.ShouldBe(string.Concat(runes[best[0].Start..best[0].End]));
        Tokenizer.Encode(best[0].Text.TrimStart(), addSpecialTokens: false).Length.ShouldBeInRange(2, 4);
        best[0].Start.ShouldBeGreaterThan(20); // beyond the first window's beginning
    }

    [Fact]
    public void Best_EndBeforeTheBeginningOrTooFar_IsNoAnswer()
    {
        var finder = new AnswerFinder(Tokenizer, "What?", "all good things come to an end", 64, 8);
        var (ids, _) = finder.Windows.ShouldHaveSingleItem();
        var reading = Scores(ids.Length, [(ids.Length - 3, 9f, 0f), (ids.Length - 7, 0f, 9f)]);

        var best = finder.Best([reading], count: 50, longest: 3, mayBeNone: false);

        best.Count.ShouldBeGreaterThan(5);
        best.ShouldAllBe(answer => answer.End > answer.Start && Tokenizer.Encode(answer.Text.Trim(), addSpecialTokens: false).Length <= 3 + 1);
    }

    [Fact]
    public void Best_FirstTokenScoresHighest_SaysThereIsNone()
    {
        var finder = new AnswerFinder(Tokenizer, "What?", "all good things", 64, 8);
        var reading = Scores(finder.Windows[0].Ids.Length, [(0, 9f, 9f)]);

        finder.Best([reading], 1, 15, mayBeNone: true).ShouldHaveSingleItem().Text.ShouldBe("");
        finder.Best([reading], 1, 15, mayBeNone: false).ShouldHaveSingleItem().Text.ShouldNotBe("");
    }

    [Fact]
    public void Windows_QuestionThatFillsTheModel_LeavesNone() =>
        new AnswerFinder(Tokenizer, string.Concat(Enumerable.Repeat("why ", 60)), "it is so", 64, 8).Windows.ShouldBeEmpty();

    private static Engine.Reading.Reading Scores(int tokens, (int Token, float Start, float End)[] high)
    {
        var rows = Enumerable.Range(0, tokens).Select(_ => new float[2]).ToArray();
        foreach (var (token, start, end) in high)
        {
            rows[token] = [start, end];
        }

        return new Engine.Reading.Reading(rows);
    }
}

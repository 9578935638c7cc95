using PeftServer.Engine.Generation;

namespace PeftServer.Engine.Tests.Generation;

/// <summary>The books of a search of beams, on scores that are worked out by hand.</summary>
public sealed class BeamSearchTests
{
    private const int End = 9;

    /// <summary>Greedy takes 1 (0.6), then at best 0.5; the second beam's 2 (0.4) has 1.0 behind it.</summary>
    [Fact]
    public void Advance_LikelierWhole_WinsOverTheLikelierBeginning()
    {
        var search = Search(width: 2, most: 2);

        search.Advance([Row((1, 0.6), (2, 0.4))]);
        search.Running.Select(beam => beam.Tokens[0]).ShouldBe([1, 2]);
        search.Advance([Row((3, 0.5), (4, 0.5)), Row((5, 1.0))]);

        search.IsOver.ShouldBeTrue();
        search.Finished.Count.ShouldBe(2);
        search.Finished[0].Tokens.ShouldBe([2, 5]);
        search.Finished[0].Score.ShouldBe((float)(Math.Log(0.4) / 2), 1e-6f);
        search.Finished[1].Score.ShouldBe((float)(Math.Log(0.3) / 2), 1e-6f);
        search.Finished.ShouldAllBe(hypothesis => hypothesis.FinishReason == FinishReason.Length && hypothesis.TokenCount == 2);
    }

    /// <summary>An end beyond the first two of the candidates is no hypothesis, and no beam either.</summary>
    [Fact]
    public void Advance_EndThatIsNotAmongTheBest_IsForgotten()
    {
        var search = Search(width: 2, most: 5);

        search.Advance([Row((1, 0.5), (2, 0.3), (End, 0.2))]);

        search.Finished.ShouldBeEmpty();
        search.Running.Select(beam => beam.Tokens[0]).ShouldBe([1, 2]);
    }

    [Theory]
    [InlineData(BeamStop.Full, 0.9, true)] // two have ended, that is all
    [InlineData(BeamStop.NoneIsBetter, 0.9, true)] // 0.5 * 0.4 * 0.1 in 3 tokens is worse than 0.25 in 2
    [InlineData(BeamStop.NoneCanBeBetter, 0.9, false)] // stretched over 100 tokens it would be better
    public void Advance_AsManyHypothesesAsBeams_EndsAsTheStopSays(BeamStop stop, double likely, bool isOver)
    {
        var search = Search(width: 2, most: 100, stop: stop);

        search.Advance([Row((1, 0.5), (2, 0.4))]);
        search.Advance([Row((End, likely), (3, 1 - likely)), Row((End, likely), (4, 1 - likely))]);

        search.Finished.Select(hypothesis => hypothesis.Tokens[0]).ShouldBe([1, 2]);
        search.Finished.ShouldAllBe(hypothesis => hypothesis.FinishReason == FinishReason.Stop && hypothesis.Tokens.Count == 1 && hypothesis.TokenCount == 2);
        search.Finished[0].Score.ShouldBe((float)(Math.Log(0.5 * likely) / 2), 1e-6f);
        search.IsOver.ShouldBe(isOver);
    }

    /// <summary>0.5 in one token against 0.2 in two: by the square of the length 0.2 is better, by length alone 0.5.</summary>
    [Theory]
    [InlineData(1.0, 0)]
    [InlineData(2.0, 1)]
    public void Advance_LengthPenalty_FavoursLongHypotheses(double penalty, int tokens)
    {
        var search = Search(width: 2, most: 10, penalty, BeamStop.NoneCanBeBetter);

        search.Advance([Row((End, 0.5), (1, 0.5))]);
        search.Advance([Row((End, 0.4), (2, 0.3), (3, 0.3))]);

        search.Finished[0].Tokens.Count.ShouldBe(tokens);
    }

    private static BeamSearch Search(int width, int most, double penalty = 1, BeamStop stop = BeamStop.NoneIsBetter) =>
        new(new BeamParameters { Width = width, LengthPenalty = penalty, Stop = stop }, new HashSet<int> { End }, most);

    private static List<(int Token, float LogProbability)> Row(params (int Token, double Probability)[] row) =>
        [.. row.Select(entry => (entry.Token, (float)Math.Log(entry.Probability)))];
}

namespace PeftServer.Engine.Generation;

/// <summary>A text that is pursued.</summary>
/// <param name="Parent">Which of the beams before it goes on.</param>
/// <param name="Tokens">Its tokens.</param>
/// <param name="Score">Their log-probability.</param>
internal sealed record Beam(int Parent, IReadOnlyList<int> Tokens, float Score);

/// <summary>The books of a search of beams, as transformers keeps them: which texts go on, and the best of those that have ended.</summary>
internal sealed class BeamSearch(BeamParameters parameters, IReadOnlySet<int> stopTokens, int maxTokens)
{
    private List<BeamHypothesis> _finished = [];
    private int _length;

    /// <summary>The texts that are pursued, best first.</summary>
    public IReadOnlyList<Beam> Running { get; private set; } = [new Beam(0, [], 0)];

    /// <summary>Texts that have ended, best first.</summary>
    public IReadOnlyList<BeamHypothesis> Finished => _finished;

    public bool IsOver { get; private set; }

    /// <summary>
    /// Continuations of each beam that must be known: of a beam's likeliest so many can end, and there must be enough that do not.
    /// </summary>
    public int Candidates { get; } = Math.Max(2, 1 + stopTokens.Count) * parameters.Width;

    /// <summary>Takes the <see cref="Candidates"/> likeliest continuations of every beam in <see cref="Running"/>.</summary>
    public void Advance(IReadOnlyList<IReadOnlyList<(int Token, float LogProbability)>> continuations)
    {
        var best = Running.SelectMany((beam, i) => continuations[i].Select(next => (Parent: i, next.Token, Score: beam.Score + next.LogProbability)))
            .OrderByDescending(candidate => candidate.Score).Take(Candidates).ToList();
        _length++;
        var ends = best.Select(candidate => _length >= maxTokens || stopTokens.Contains(candidate.Token)).ToList();

        // Only the first of them may end the search: the others are there so that enough go on.
        var ended = best.Take(parameters.Width).Where((_, i) => ends[i]).Select(candidate => Ended(candidate.Parent, candidate.Token, candidate.Score));
        if (!(parameters.Stop is BeamStop.Full && _finished.Count == parameters.Width))
        {
            _finished = [.. _finished.Concat(ended).OrderByDescending(hypothesis => hypothesis.Score).Take(parameters.Width)];
        }

        Running = [.. best.Where((_, i) => !ends[i]).Take(parameters.Width)
            .Select(candidate => new Beam(candidate.Parent, [.. Running[candidate.Parent].Tokens, candidate.Token], candidate.Score))];
        IsOver = Running.Count == 0 || (_finished.Count == parameters.Width && !CanImprove());
    }

    private bool CanImprove() => parameters.Stop switch
    {
        BeamStop.Full => false,
        BeamStop.NoneCanBeBetter when parameters.LengthPenalty > 0 => By(Running[0].Score, maxTokens) > _finished[^1].Score,
        _ => By(Running[0].Score, _length) > _finished[^1].Score,
    };

    private BeamHypothesis Ended(int parent, int token, float score)
    {
        var stops = stopTokens.Contains(token);
        var before = Running[parent].Tokens;
        return new BeamHypothesis(stops ? before : [.. before, token], By(score, _length), stops ? FinishReason.Stop : FinishReason.Length, _length);
    }

    private float By(float score, int length) => (float)(score / Math.Pow(length, parameters.LengthPenalty));
}

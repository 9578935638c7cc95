namespace PeftServer.Engine.Generation;

/// <summary>
/// The beams of one request, each a sequence of its own in the engine. When all of them have been read to their ends the search says which go
/// on, and those share what their parents have cached.
/// </summary>
internal sealed class BeamGroup(BeamParameters parameters) : IDisposable
{
    private readonly TaskCompletionSource<IReadOnlyList<BeamHypothesis>> _result = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Dictionary<GenerationSequence, IReadOnlyList<(int Token, float LogProbability)>> _continuations = [];
    private List<GenerationSequence> _beams = [];
    private BeamSearch? _search;

    /// <summary>What the search has found, best first.</summary>
    public Task<IReadOnlyList<BeamHypothesis>> Result => _result.Task;

    /// <summary>Whether there is a result, or will be none.</summary>
    public bool IsOver => _result.Task.IsCompleted;

    /// <summary>Beams that have yet to be read.</summary>
    public IEnumerable<GenerationSequence> Unread => _beams.Where(beam => !_continuations.ContainsKey(beam));

    /// <summary>Continuations that each beam must give.</summary>
    public int Candidates => _search!.Candidates;

    /// <summary>Begins with the prompt, for answers of <paramref name="maxTokens"/> at most.</summary>
    public void Begin(GenerationSequence prompt, int maxTokens)
    {
        _search = new BeamSearch(parameters, prompt.Request.Sampling.StopTokens, maxTokens);
        _beams = [prompt];
    }

    /// <summary>Takes the likeliest continuations of a beam. With the last of them the search goes on, or is over.</summary>
    public void Continue(GenerationSequence beam, IReadOnlyList<(int Token, float LogProbability)> continuations)
    {
        _continuations[beam] = continuations;
        if (_continuations.Count < _beams.Count)
        {
            return;
        }

        _search!.Advance([.. _beams.Select(one => _continuations[one])]);
        _continuations.Clear();
        if (_search.IsOver)
        {
            _result.TrySetResult(_search.Finished);
            return;
        }

        var left = _search.Running.CountBy(next => next.Parent).ToDictionary();
        var parents = _beams;
        _beams = [.. _search.Running.Select(next => parents[next.Parent].Fork(next.Tokens, takesCache: --left[next.Parent] == 0))];
        foreach (var parent in parents)
        {
            parent.DropCache(); // of those that nobody continues
        }
    }

    public void Fail(Exception fault) => _result.TrySetException(fault);

    public void Dispose()
    {
        foreach (var beam in _beams)
        {
            beam.DropCache();
        }

        _result.TrySetCanceled();
    }
}

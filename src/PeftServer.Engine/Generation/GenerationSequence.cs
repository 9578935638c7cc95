using System.Threading.Channels;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>A request on its way through the engine: what it has yet to feed, its cache, where its tokens go.</summary>
internal sealed class GenerationSequence(GenerationRequest request, CancellationToken cancellationToken) : IDisposable
{
    private readonly Channel<GeneratedToken> _output = Channel.CreateUnbounded<GeneratedToken>(new() { SingleReader = true, SingleWriter = true });
    private readonly Sampler _sampler = new(request.Sampling);
    private List<int> _pending = [.. request.Prompt];
    private readonly List<int> _generatedTokens = [];
    private int _generated;
    private int _layers;
    private int _most = request.Sampling.MaxTokens;

    public GenerationRequest Request { get; } = request;

    public ChannelReader<GeneratedToken> Output => _output.Reader;

    public KeyValueCache? Cache { get; private set; }

    public IReadOnlyList<Adapter> Adapters { get; private set; } = [];

    public bool IsFinished { get; private set; }

    /// <summary>The stop token that ended the answer; null while there is none.</summary>
    public int? StopToken { get; private set; }

    public bool IsCancelled => cancellationToken.IsCancellationRequested;

    /// <summary>Tokens to feed before the next one can be chosen.</summary>
    public int PendingCount => _pending.Count;

    /// <summary>Rows of a prompt that go in before the first of them.</summary>
    public int PromptRows { get; private set; }

    /// <summary>Whether an adapter must see the whole sequence for every token: nothing is cached then.</summary>
    private bool ReadsWhole => Adapters.Any(adapter => adapter.ReadsWholeSequences);

    public bool IsPlainGreedy => Request.Sampling.IsPlainGreedy;

    /// <summary>
    /// Readies the sequence for a model that takes <paramref name="maxLength"/> tokens, those that the adapter puts before it included. Throws
    /// <see cref="NotSupportedException"/> when that leaves no room for an answer, and <see cref="AdapterException"/> for a task it does not know.
    /// </summary>
    public void Start(int layers, int maxLength, Adapter? adapter)
    {
        var virtualTokens = adapter?.VirtualTokens ?? 0;
        _most = Math.Min(_most, maxLength - virtualTokens - Request.Prompt.Count);
        if (_most < 1)
        {
            throw new NotSupportedException(
                $"The model takes {maxLength} tokens; {virtualTokens} virtual ones of the adapter and {Request.Prompt.Count} of the prompt leave no room for an answer.");
        }

        if (IKnowsTasks.Fault(adapter?.Config, Request.Task) is { } fault)
        {
            throw new AdapterException("task_id", fault);
        }

        (_layers, Adapters) = (layers, adapter is null ? [] : [adapter]);
        Begin();
    }

    /// <summary>The next tokens to feed, <paramref name="most"/> at most; all of them where the adapter must see the whole sequence.</summary>
    public IReadOnlyList<int> Peek(int most) => ReadsWhole || most >= _pending.Count ? _pending : _pending.GetRange(0, most);

    /// <summary>Says that <paramref name="count"/> tokens went through the model.</summary>
    public void Fed(int count)
    {
        Cache!.Advance(count);
        PromptRows = 0;
        _pending = count == _pending.Count ? [] : _pending.GetRange(count, _pending.Count - count);
    }

    /// <summary>Takes the likeliest token, found on the device.</summary>
    public void Accept(int token) => Accept(new SampledToken(token, null, null));

    /// <summary>Chooses from scores.</summary>
    public void Choose(Span<float> scores) => Accept(_sampler.Next(scores));

    public void Fail(Exception fault)
    {
        IsFinished = true;
        _output.Writer.TryComplete(fault);
    }

    public void Dispose()
    {
        Cache?.Dispose();
        _output.Writer.TryComplete();
    }

    private void Accept(SampledToken token)
    {
        _generated++;
        if (Request.Sampling.StopTokens.Contains(token.Id))
        {
            StopToken = token.Id;
            Finish(new GeneratedToken(null, FinishReason.Stop, token.LogProbability, token.Top));
            return;
        }

        if (_generated >= _most)
        {
            Finish(new GeneratedToken(token.Id, FinishReason.Length, token.LogProbability, token.Top));
            return;
        }

        _generatedTokens.Add(token.Id);
        if (ReadsWhole)
        {
            Begin();
            _pending = [.. Request.Prompt, .. _generatedTokens];
        }
        else
        {
            _pending.Add(token.Id);
        }

        _output.Writer.TryWrite(new GeneratedToken(token.Id, null, token.LogProbability, token.Top));
    }

    private void Begin()
    {
        Cache?.Dispose();
        Cache = new KeyValueCache(_layers);
        PromptRows = Adapters.Sum(adapter => adapter.PromptRows);
    }

    private void Finish(GeneratedToken last)
    {
        IsFinished = true;
        _output.Writer.TryWrite(last);
        _output.Writer.TryComplete();
    }
}

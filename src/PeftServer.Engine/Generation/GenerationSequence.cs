using System.Threading.Channels;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>A request on its way through the engine: what it reads, what it has yet to feed, its cache, where its tokens go.</summary>
internal sealed class GenerationSequence(GenerationRequest request, CancellationToken cancellationToken, BeamGroup? beams = null) : IDisposable
{
    private readonly Channel<GeneratedToken> _output = Channel.CreateUnbounded<GeneratedToken>(new() { SingleReader = true, SingleWriter = true });
    private Sampler? _sampler;
    private IReadOnlyList<int> _opening = request.Prompt;
    private List<int> _pending = [];
    private List<int> _generatedTokens = [];
    private readonly List<PromptToken> _promptTokens = [];
    private int _generated;
    private int _layers;
    private int _most = request.Sampling.MaxTokens;
    private bool _reads;
    private bool _isFinished;

    public GenerationRequest Request { get; } = request;

    public ChannelReader<GeneratedToken> Output => _output.Reader;

    public KeyValueCache? Cache { get; private set; }

    public IReadOnlyList<Adapter> Adapters { get; private set; } = [];

    public bool IsFinished => _isFinished || beams is { IsOver: true };

    /// <summary>The stop token that ended the answer; null while there is none.</summary>
    public int? StopToken { get; private set; }

    public bool IsCancelled => cancellationToken.IsCancellationRequested;

    /// <summary>What an encoder has made of the prompt; null until then, and where there is none.</summary>
    public EncodedSource? Source { get; private set; }

    /// <summary>Whether an encoder has yet to read the prompt.</summary>
    public bool AwaitsSource => _reads && Source is null;

    /// <summary>Tokens to feed before the next one can be chosen.</summary>
    public int PendingCount => _pending.Count;

    /// <summary>Rows of a prompt that go in before the first of them.</summary>
    public int PromptRows { get; private set; }

    /// <summary>Whether an adapter must see the whole sequence for every token: nothing is cached then.</summary>
    private bool ReadsWhole => Adapters.Any(adapter => adapter.ReadsWholeSequences);

    public bool IsPlainGreedy => beams is null && Request.Sampling.IsPlainGreedy;

    /// <summary>Continuations that are wanted of it as a beam; null where it is none.</summary>
    public int? Candidates => beams?.Candidates;

    /// <summary>The sequences that are to be read for the request: this one, or its beams.</summary>
    public IEnumerable<GenerationSequence> Parts => beams is null || AwaitsSource ? [this] : beams.Unread;

    /// <summary>
    /// Readies the sequence for <paramref name="model"/>, which takes so many tokens, those that the adapter puts before it included. Throws
    /// <see cref="NotSupportedException"/> when that leaves no room for an answer, and <see cref="AdapterException"/> for a task it does not know.
    /// </summary>
    public void Start(LanguageModel model, Adapter? adapter)
    {
        var limits = GenerationLimits.Of(model);
        var (rows, virtualTokens) = (adapter?.PromptRows ?? 0, adapter?.VirtualTokens ?? 0);
        var room = limits.AnswerRoom(Request.Prompt.Count, rows, virtualTokens);
        if (room < Math.Min(1, _most) || Request.Prompt.Count > limits.PromptRoom(rows, virtualTokens))
        {
            throw new NotSupportedException(
                $"The model takes {model.MaxLength} tokens; {virtualTokens} virtual ones of the adapter and {Request.Prompt.Count} of the prompt leave no room for an answer.");
        }

        if (IKnowsTasks.Fault(adapter?.Config, Request.Task) is { } fault)
        {
            throw new AdapterException("task_id", fault);
        }

        if (limits.IsEncoderDecoder && Request.PromptLogProbabilities is not null)
        {
            throw new NotSupportedException("An encoder-decoder reads its prompt whole; it foretells none of its tokens.");
        }

        _most = Math.Min(_most, room);
        (_layers, Adapters, _reads) = (model.LayerCount, adapter is null ? [] : [adapter], limits.IsEncoderDecoder);
        _opening = model is Seq2SeqLanguageModel reader ? [reader.StartToken] : Request.Prompt;
        _sampler = new Sampler(Request.Sampling, _opening);
        Begin();
        beams?.Begin(this, _most);
    }

    /// <summary>
    /// Tokens of the prompt that stand behind the next <paramref name="count"/> to be fed, and are foretold by them; none where nobody wants to know.
    /// </summary>
    public IReadOnlyList<int> Foretold(int count) => Request.PromptLogProbabilities is null ? [] : [.. Request.Prompt.Skip(_promptTokens.Count + 1).Take(count)];

    /// <summary>Takes what the model makes of the next tokens of the prompt.</summary>
    public void Foretell(IEnumerable<PromptToken> tokens) => _promptTokens.AddRange(tokens);

    /// <summary>Takes what an encoder has made of the prompt.</summary>
    public void Read(EncodedSource source) => Source = source;

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
    public void Choose(Span<float> scores) => Accept(_sampler!.Next(scores));

    /// <summary>Takes the likeliest continuations of a beam.</summary>
    public void Continue(IReadOnlyList<(int Token, float LogProbability)> continuations) => beams!.Continue(this, continuations);

    /// <summary>A beam that goes on from this one with other tokens behind the prompt; with its cache, or a copy.</summary>
    public GenerationSequence Fork(IReadOnlyList<int> tokens, bool takesCache)
    {
        var fork = new GenerationSequence(Request, cancellationToken, beams)
        {
            Adapters = Adapters,
            Source = Source,
            _opening = _opening,
            _generatedTokens = [.. tokens],
            _generated = tokens.Count,
            _layers = _layers,
            _most = _most,
            _reads = _reads,
        };
        if (ReadsWhole)
        {
            fork.Begin();
            fork._pending = [.. _opening, .. tokens];
            return fork;
        }

        fork._pending = [tokens[^1]];
        fork.Cache = takesCache ? Cache : Cache!.Clone();
        Cache = takesCache ? null : Cache;
        return fork;
    }

    /// <summary>Lets go of what is cached, where nobody has taken it.</summary>
    public void DropCache()
    {
        Cache?.Dispose();
        Cache = null;
    }

    /// <summary>Takes the token that must come now, whatever the scores; false where any may.</summary>
    public bool TakeForced()
    {
        var forced = _generated == _most - 1 && Request.Sampling.Forced?.Last is { } last ? last
            : _generated == 0 ? Request.Sampling.Forced?.First : null;
        if (forced is { } only && beams is not null)
        {
            Continue([(only, 0)]);
        }
        else if (forced is { } token)
        {
            Accept(new SampledToken(token, Request.Sampling.TopLogProbabilities is null ? null : 0, Request.Sampling.TopLogProbabilities is > 0 ? [(token, 0)] : []));
        }

        return forced is not null;
    }

    /// <summary>Ends where no token is asked for; false where one is.</summary>
    public bool EndsWithPrompt()
    {
        if (_most == 0)
        {
            Finish(Opening(new GeneratedToken(null, FinishReason.NothingAsked)));
        }

        return _most == 0;
    }

    public void Fail(Exception fault)
    {
        _isFinished = true;
        beams?.Fail(fault);
        _output.Writer.TryComplete(fault);
    }

    public void Dispose()
    {
        beams?.Dispose();
        DropCache();
        Source?.Dispose();
        _output.Writer.TryComplete();
    }

    private void Accept(SampledToken token)
    {
        _generated++;
        if (Request.Sampling.StopTokens.Contains(token.Id))
        {
            StopToken = token.Id;
            var isCut = _generated >= _most && token.Id == Request.Sampling.Forced?.Last; // it was put there: the model had more to say
            Finish(Opening(new GeneratedToken(null, isCut ? FinishReason.Length : FinishReason.Stop, token.LogProbability, token.Top)));
            return;
        }

        if (_generated >= _most)
        {
            Finish(Opening(new GeneratedToken(token.Id, FinishReason.Length, token.LogProbability, token.Top)));
            return;
        }

        _generatedTokens.Add(token.Id);
        if (ReadsWhole)
        {
            Begin();
            _pending = [.. _opening, .. _generatedTokens];
        }
        else
        {
            _pending.Add(token.Id);
        }

        _output.Writer.TryWrite(Opening(new GeneratedToken(token.Id, null, token.LogProbability, token.Top)));
    }

    /// <summary>The token; with what is known of the prompt where it is the first.</summary>
    private GeneratedToken Opening(GeneratedToken token) =>
        _generated <= 1 && Request.PromptLogProbabilities is not null ? token with { Prompt = _promptTokens } : token;

    private void Begin()
    {
        Cache?.Dispose();
        Cache = new KeyValueCache(_layers);
        PromptRows = _reads ? 0 : Adapters.Sum(adapter => adapter.PromptRows); // with an encoder they are its text's
        _pending = [.. _opening];
    }

    private void Finish(GeneratedToken last)
    {
        _isFinished = true;
        _output.Writer.TryWrite(last);
        _output.Writer.TryComplete();
    }
}

using System.Threading.Channels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Generation;

/// <summary>
/// Continues many sequences at once on one base model, each with its own adapter; with an encoder-decoder a sequence is what is written
/// of the text it reads. One thread owns the model and every tensor; requests come to it through a channel, and each step takes in what has
/// come since the last.
/// </summary>
public sealed class GenerationEngine : IDisposable
{
    /// <summary>Adapters held in memory beside the base.</summary>
    private const int AdapterCapacity = 64;

    private readonly GenerationEngineOptions _options;
    private readonly ModelThread<GenerationSequence, GenerationLimits> _thread;

    /// <summary>Starts loading; <see cref="Loaded"/> tells when requests are served.</summary>
    public GenerationEngine(GenerationEngineOptions options)
    {
        _options = options;
        _thread = new ModelThread<GenerationSequence, GenerationLimits>(nameof(GenerationEngine), Work, Drop);
        _thread.Start();
    }

    /// <summary>Completes when the model is loaded, with what it can take; fails with why it is not.</summary>
    public Task<GenerationLimits> Loaded => _thread.Loaded;

    /// <summary>Requests that are being served or wait to be.</summary>
    public int Load => _thread.Load;

    /// <summary>
    /// Continues the prompt of <paramref name="request"/>. The reader gives each token as it is chosen and completes after the last;
    /// it fails when the adapter does not load. Cancelling frees the request's place at the next step.
    /// </summary>
    public ChannelReader<GeneratedToken> Generate(GenerationRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfZero(request.Prompt.Count);
        var sequence = new GenerationSequence(request, cancellationToken);
        _thread.Send(sequence);
        return sequence.Output;
    }

    /// <summary>
    /// The best continuations of a prompt that a search of beams finds, best first. How tokens are drawn has no part in it; what ends an answer, and
    /// what it must begin or be cut off with, has.
    /// </summary>
    public Task<IReadOnlyList<BeamHypothesis>> SearchAsync(GenerationRequest request, BeamParameters beams, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfZero(request.Prompt.Count);
        ArgumentOutOfRangeException.ThrowIfLessThan(request.Sampling.MaxTokens, 1);
        var group = new BeamGroup(beams);
        _thread.Send(new GenerationSequence(request, cancellationToken, group));
        return group.Result;
    }

    public void Dispose() => _thread.Dispose();

    private void Work()
    {
        var device = Devices.Parse(_options.Device);
        using var frozen = no_grad();
        using var model = PretrainedModel.Load(_options.ModelFolder, device, Devices.DefaultDtype(device, _options.Bf16), shared: _options.Shared) as LanguageModel
            ?? throw new NotSupportedException("The model has no head that writes text.");
        using var adapters = new LoadedAdapters(model, AdapterCapacity);
        _thread.Ready(GenerationLimits.Of(model));
        while (_thread.Wait())
        {
            Admit(model, adapters);
            DecodingStep.Run(model, [.. _thread.Taken.SelectMany(sequence => sequence.Parts)], _options.MaxBatchTokens);
            foreach (var sequence in _thread.Taken.Where(sequence => sequence.IsFinished || sequence.IsCancelled).ToList())
            {
                Retire(sequence);
            }
        }
    }

    private void Admit(LanguageModel model, LoadedAdapters adapters)
    {
        while (_thread.Taken.Count < _options.MaxSequences && _thread.TryTake(out var sequence))
        {
            try
            {
                var adapter = sequence.Request.Adapter is { } reference
                    ? adapters.Get(reference, used => _thread.Taken.Any(other => other.Adapters.Contains(used)))
                    : null;
                sequence.Start(model, adapter);
            }
            catch (Exception e)
            {
                sequence.Fail(e);
                Retire(sequence);
            }
        }
    }

    private void Retire(GenerationSequence sequence)
    {
        _thread.Done(sequence);
        sequence.Dispose();
    }

    private static void Drop(GenerationSequence sequence, Exception why)
    {
        sequence.Fail(why);
        sequence.Dispose();
    }
}

/// <summary>What a <see cref="GenerationEngine"/> runs, and within what bounds.</summary>
public sealed record GenerationEngineOptions
{
    /// <summary>Folder of the base model.</summary>
    public required string ModelFolder { get; init; }

    /// <summary>auto, cpu or cuda:N.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>bfloat16 base; absent: on GPUs only.</summary>
    public bool? Bf16 { get; init; }

    /// <summary>Where engines of the same folder find what the others have loaded of it; null: nowhere.</summary>
    public SharedTensors? Shared { get; init; }

    /// <summary>Sequences served at once.</summary>
    public int MaxSequences { get; init; } = 64;

    /// <summary>Tokens that one step feeds at most.</summary>
    public int MaxBatchTokens { get; init; } = 2048;
}

/// <summary>What a loaded model can take.</summary>
/// <param name="MaxLength">Tokens of prompt and answer together; of each of them where <paramref name="IsEncoderDecoder"/>.</param>
/// <param name="Vocabulary">Tokens that there are.</param>
/// <param name="IsEncoderDecoder">The prompt is read by an encoder; the answer is a text of its own.</param>
public sealed record GenerationLimits(int MaxLength, int Vocabulary, bool IsEncoderDecoder)
{
    internal static GenerationLimits Of(LanguageModel model) => new(model.MaxLength, model.Config.VocabSize, model is Seq2SeqLanguageModel);

    /// <summary>Tokens that a prompt may have under an adapter that puts <paramref name="rows"/> rows and <paramref name="virtualTokens"/> tokens in all before it.</summary>
    public int PromptRoom(int rows, int virtualTokens) => MaxLength - (IsEncoderDecoder ? rows : virtualTokens);

    /// <summary>Tokens that are left for the answer to a prompt of <paramref name="prompt"/> tokens; an encoder-decoder's begins with a token of its own.</summary>
    public int AnswerRoom(int prompt, int rows, int virtualTokens) =>
        IsEncoderDecoder ? MaxLength - 1 - (virtualTokens - rows) : MaxLength - virtualTokens - prompt;
}

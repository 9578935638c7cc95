using System.Threading.Channels;
using PeftServer.Core.Http;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Writing;

/// <summary>A loaded model that writes, as one request uses it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Served">The base.</param>
/// <param name="Speech">How it speaks under the adapter.</param>
/// <param name="Limits">What the base takes.</param>
/// <param name="Adapter">The adapter; null for the base alone.</param>
internal sealed record Writer(string Name, ServedWriter Served, Speech Speech, GenerationLimits Limits, AdapterReference? Adapter)
{
    /// <summary>Tokens of a prompt that say how the next one looks: a character has four at most.</summary>
    private const int Context = 8;

    /// <summary>The model, loaded. Throws what loading throws.</summary>
    public static async Task<Writer> LoadAsync(RequestedModel model, ServedModels models, CancellationToken cancellationToken)
    {
        var served = models.Writer(model.Base);
        var limits = await served.Engine.Loaded.WaitAsync(cancellationToken);
        return new Writer(model.Name, served, served.SpeechOf(model.Adapter), limits, model.Adapter);
    }

    /// <summary>Tokens that a prompt may have.</summary>
    public int PromptRoom => Limits.PromptRoom(Speech.PromptRows, Speech.VirtualTokens);

    /// <summary>Tokens that are left for the answer to a prompt.</summary>
    public int RoomAfter(int[] prompt) => Limits.AnswerRoom(prompt.Length, Speech.PromptRows, Speech.VirtualTokens);

    /// <summary>Throws <see cref="ApiErrorException"/> for a task that the adapter does not know.</summary>
    public void CheckTask(int? task)
    {
        if (IKnowsTasks.Fault(Speech.Adapter, task ?? 0) is { } fault)
        {
            throw new ApiErrorException(ApiError.BadRequest(fault, "task_id", "invalid_value"));
        }
    }

    /// <summary>Hands a prompt to the engine, for the choice of that number.</summary>
    public Answer Start(SampledRequest request, int[] prompt, int choice, CancellationToken cancellationToken) =>
        Answer(request, prompt, Served.Engine.Generate(Generation(request, prompt, choice), cancellationToken));

    /// <summary>Has the engine search for the best answers to a prompt.</summary>
    public IReadOnlyList<Answer> Search(SampledRequest request, int[] prompt, CancellationToken cancellationToken)
    {
        var search = Served.Engine.SearchAsync(Generation(request, prompt, 0), BeamSettings.Of(request), cancellationToken);
        return [.. Enumerable.Range(0, request.N ?? 1).Select(rank => Answer(request, prompt, FoundTokens.Of(search, rank)))];
    }

    private GenerationRequest Generation(SampledRequest request, int[] prompt, int choice) => new()
    {
        Prompt = prompt,
        Adapter = Adapter,
        Task = request.TaskId ?? 0,
        Sampling = SamplingSettings.Sampling(request, Speech, RoomAfter(prompt), choice),
        PromptLogProbabilities = request.PromptRivals,
    };

    private Answer Answer(SampledRequest request, int[] prompt, ChannelReader<GeneratedToken> tokens)
    {
        var form = new AnswerForm(request.Stop?.Values ?? [], request.IncludeStopStrInOutput ?? false, request.SkipSpecialTokens ?? true);
        var context = request.ContinuesText && !Limits.IsEncoderDecoder ? prompt[^Math.Min(prompt.Length, Context)..] : [];
        return new Answer(tokens, Served.Tokenizer, form, context);
    }
}

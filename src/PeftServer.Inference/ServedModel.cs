using System.Collections.Concurrent;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;

namespace PeftServer.Inference;

/// <summary>One base on this host: its tokenizer, its engine, and how each adapter on it speaks.</summary>
internal sealed class ServedModel : IDisposable
{
    private readonly GenerationEngine _engine;
    private readonly Speech _base;
    private readonly ConcurrentDictionary<string, Speech> _adapters = [];

    public ServedModel(BaseModel model, InferenceOptions options, InferenceHostOptions hostOptions)
    {
        Tokenizer = Tokenizer.Load(model.Folder);
        _base = new Speech(new ChatEncoder(Tokenizer), AdapterCompanions.StopTokens(model.Folder));
        _engine = new GenerationEngine(new GenerationEngineOptions
        {
            ModelFolder = model.Folder,
            Device = options.Device,
            MaxSequences = hostOptions.MaxSequences,
        });
    }

    public Tokenizer Tokenizer { get; }

    public DateTimeOffset LastUsed { get; set; }

    public int Load => _engine.Load;

    public GenerationEngine Engine => _engine;

    public InferenceState State => _engine.Loaded switch
    {
        { IsCompletedSuccessfully: true } => InferenceState.Ready,
        { IsFaulted: true } => InferenceState.Failed,
        _ => InferenceState.Loading,
    };

    /// <summary>
    /// How the model speaks with an adapter: the template and stop tokens that lie beside its weights, the base's where there are none.
    /// </summary>
    public Speech SpeechOf(AdapterReference? adapter) => adapter is null ? _base : _adapters.GetOrAdd(adapter.Digest, _ =>
    {
        var config = AdapterFile.ReadConfig(adapter.Folder);
        var template = Path.Combine(adapter.Folder, "chat_template.jinja");
        var stops = AdapterCompanions.StopTokens(adapter.Folder);
        return new Speech(
            File.Exists(template) ? new ChatEncoder(Tokenizer, template: ChatTemplate.Parse(File.ReadAllText(template))) : _base.Chat,
            stops.Count > 0 ? stops : _base.StopTokens,
            config);
    });

    public void Dispose() => _engine.Dispose();
}

/// <summary>How chats become tokens, and which tokens end a turn.</summary>
/// <param name="Chat">Chats to tokens.</param>
/// <param name="StopTokens">Tokens that end a turn.</param>
/// <param name="Adapter">Settings of the adapter; null for the base.</param>
internal sealed record Speech(ChatEncoder Chat, IReadOnlySet<int> StopTokens, AdapterConfig? Adapter = null)
{
    /// <summary>Tokens that the adapter puts before every chat.</summary>
    public int VirtualTokens => (Adapter as PromptConfig)?.NumVirtualTokens ?? 0;
}

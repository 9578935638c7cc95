using System.Collections.Concurrent;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;
using PeftServer.Engine.Weights;

namespace PeftServer.Inference;

/// <summary>A base that writes text: its tokenizer, its engine, and how each adapter on it speaks.</summary>
internal sealed class ServedWriter : ServedModel
{
    private readonly Speech _base;
    private readonly ConcurrentDictionary<string, Speech> _adapters = [];

    public ServedWriter(BaseModel model, SharedTensors shared, InferenceOptions options, InferenceHostOptions hostOptions)
        : base(model)
    {
        _base = new Speech(ChatOf(Tokenizer), AdapterCompanions.StopTokens(model.Folder), ForcedTokens.Read(model.Folder));
        Engine = new GenerationEngine(new GenerationEngineOptions
        {
            ModelFolder = model.Folder,
            Shared = shared,
            Device = options.Device,
            MaxSequences = hostOptions.MaxSequences,
        });
    }

    public GenerationEngine Engine { get; }

    public override int Load => Engine.Load;

    public override InferenceState State => StateOf(Engine.Loaded);

    /// <summary>
    /// How the model speaks with an adapter: the template and stop tokens that lie beside its weights, the base's where there are none.
    /// </summary>
    public Speech SpeechOf(AdapterReference? adapter) => adapter is null ? _base : _adapters.GetOrAdd(adapter.Digest, _ =>
    {
        var config = AdapterFile.ReadConfig(adapter.Folder);
        var template = Path.Combine(adapter.Folder, "chat_template.jinja");
        var stops = AdapterCompanions.StopTokens(adapter.Folder);
        return _base with
        {
            Chat = File.Exists(template) ? new ChatEncoder(Tokenizer, template: ChatTemplate.Parse(File.ReadAllText(template))) : _base.Chat,
            StopTokens = stops.Count > 0 ? stops : _base.StopTokens,
            Adapter = config,
        };
    });

    public override void Dispose() => Engine.Dispose();

    private static ChatEncoder? ChatOf(Tokenizer tokenizer) => tokenizer.ChatTemplate is null ? null : new ChatEncoder(tokenizer);
}

/// <summary>How chats become tokens, and which tokens end a turn.</summary>
/// <param name="Chat">Chats to tokens; null where there is no template.</param>
/// <param name="StopTokens">Tokens that end a turn.</param>
/// <param name="Forced">Tokens that an answer must begin or be cut off with.</param>
/// <param name="Adapter">Settings of the adapter; null for the base.</param>
internal sealed record Speech(ChatEncoder? Chat, IReadOnlySet<int> StopTokens, ForcedTokens? Forced, AdapterConfig? Adapter = null)
{
    /// <summary>Tokens that the adapter puts before every chat.</summary>
    public int VirtualTokens => (Adapter as PromptConfig)?.NumVirtualTokens ?? 0;

    /// <summary>Those of them that are rows before the text's own.</summary>
    public int PromptRows => (Adapter as PromptConfig)?.PromptRows ?? 0;
}

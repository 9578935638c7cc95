using PeftServer.Core.Inference;
using PeftServer.Core.Models;
using PeftServer.Engine.Models;
using PeftServer.Engine.Reading;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Weights;

namespace PeftServer.Inference;

/// <summary>A base that reads texts under one head: its tokenizer and its engine.</summary>
internal sealed class ServedReader : ServedModel
{
    public ServedReader(BaseModel model, SharedTensors shared, ModelHead head, IReadOnlyList<string>? labels, InferenceOptions options, InferenceHostOptions hostOptions)
        : base(model)
    {
        Chat = Tokenizer.ChatTemplate is null ? null : new ChatEncoder(Tokenizer);
        Head = head;
        Engine = new ReadingEngine(new ReadingEngineOptions
        {
            ModelFolder = model.Folder,
            Shared = shared,
            Head = head,
            Labels = labels,
            Device = options.Device,
            MaxSequences = hostOptions.MaxSequences,
        });
    }

    public ReadingEngine Engine { get; }

    /// <summary>What stands on top of the base.</summary>
    public ModelHead Head { get; }

    /// <summary>Chats to tokens; null where there is no template.</summary>
    public ChatEncoder? Chat { get; }

    public override int Load => Engine.Load;

    public override InferenceState State => StateOf(Engine.Loaded);

    public override void Dispose() => Engine.Dispose();
}

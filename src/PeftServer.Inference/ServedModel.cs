using PeftServer.Core.Inference;
using PeftServer.Core.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference;

/// <summary>One base under one head on this host.</summary>
internal abstract class ServedModel(BaseModel model) : IDisposable
{
    public Tokenizer Tokenizer { get; } = Tokenizer.Load(model.Folder);

    public TokenTexts Texts => field ??= new TokenTexts(Tokenizer);

    public DateTimeOffset LastUsed { get; set; }

    /// <summary>Requests that are being served or wait to be.</summary>
    public abstract int Load { get; }

    public abstract InferenceState State { get; }

    public abstract void Dispose();

    protected static InferenceState StateOf(Task loaded) => loaded switch
    {
        { IsCompletedSuccessfully: true } => InferenceState.Ready,
        { IsFaulted: true } => InferenceState.Failed,
        _ => InferenceState.Loading,
    };
}

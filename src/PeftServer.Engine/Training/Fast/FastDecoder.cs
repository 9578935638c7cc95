using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// A decoder as the hand-written step sees it: embedding, blocks, norm, head. What one family does otherwise than Llama is a field here or in
/// <see cref="FastBlock"/>; <see cref="FastFamilies"/> fills them in.
/// </summary>
/// <param name="Model">The model itself.</param>
/// <param name="Embedding">Of its tokens.</param>
/// <param name="Blocks">From the first to the last.</param>
/// <param name="Norm">Behind the last block.</param>
/// <param name="Head">Makes scores.</param>
/// <param name="Rotaries">The angles that blocks turn by: <see cref="FastBlock.Rotary"/> counts them.</param>
internal sealed record FastDecoder(
    CausalLanguageModel Model, Embedding Embedding, IReadOnlyList<FastBlock> Blocks, Site Norm, Linear Head, IReadOnlyList<RotaryEmbedding> Rotaries)
{
    /// <summary>What embedded tokens are multiplied by.</summary>
    public double EmbeddingScale { get; init; } = 1;

    /// <summary>Vectors of the positions that are added to those of the tokens; null: there are none.</summary>
    public Embedding? Positions { get; init; }

    /// <summary>The row of <see cref="Positions"/> that a sequence begins at.</summary>
    public long FirstPosition { get; init; }

    /// <summary>What is done to the head's scores.</summary>
    public ScoreForm Scores { get; init; } = ScoreForm.Plain;

    public int Hidden => Embedding.Width;

    /// <summary>Width of what stands between the maps of a feed-forward, of all the experts of a token together.</summary>
    public int Intermediate => Blocks.Max(block => block.Intermediate);

    /// <summary>Experts that a token goes through; 0: there are none.</summary>
    public int ExpertsPerToken => Blocks.Max(block => block.Experts?.Shape.PerToken ?? 0);

    public HeadLayout Heads => Blocks[0].Heads;

    /// <summary>Every linear map of the blocks.</summary>
    public IEnumerable<Projection> Projections => Blocks.SelectMany(block => block.Projections);

    /// <summary>The model in these terms; null with the <paramref name="obstacle"/> where something of it is not known here.</summary>
    public static FastDecoder? Of(CausalLanguageModel model, out string obstacle)
    {
        var decoder = FastFamilies.Find(model);
        obstacle = decoder is null ? $"{model.Config.ModelType} has no hand-written step yet" : "";
        return decoder;
    }
}

/// <summary>A block: the linear maps that share an input stand together, one or several to a product.</summary>
internal sealed record FastBlock(
    IReadOnlyList<Projection> Qkv, Projection O, IReadOnlyList<Projection> GateUp, Projection? Down, HeadLayout Heads, AttentionScope Scope)
{
    /// <summary>The activation of the feed-forward.</summary>
    public GateForm Gate { get; init; }

    /// <summary>The feed-forward is a(gate) · up, else a(up), and then up alone is <see cref="GateUp"/>.</summary>
    public bool IsGated { get; init; } = true;

    /// <summary>The feed-forward, where it is one of experts and not of <see cref="GateUp"/> and <see cref="Down"/>.</summary>
    public SparseMoe? Experts { get; init; }

    /// <summary>Width of what stands between the maps of the feed-forward, or of one expert.</summary>
    public int FeedForwardWidth => Down?.InFeatures ?? Experts!.Shape.Intermediate;

    /// <summary>The same for all experts of a token together.</summary>
    public int Intermediate => FeedForwardWidth * (Experts?.Shape.PerToken ?? 1);

    /// <summary>Before attention; null: the stream goes in as it is.</summary>
    public Site? InputNorm { get; init; }

    /// <summary>Before the feed-forward; null: the stream goes in as it is.</summary>
    public Site? MiddleNorm { get; init; }

    public SublayerEnd AttentionEnd { get; init; } = SublayerEnd.Plain;

    public SublayerEnd MlpEnd { get; init; } = SublayerEnd.Plain;

    /// <summary>Attention and feed-forward read the same input, and the stream takes both their answers.</summary>
    public bool IsParallel { get; init; }

    /// <summary>Norms of q and k, where there are such.</summary>
    public Site? QueryNorm { get; init; }

    public Site? KeyNorm { get; init; }

    /// <summary>The norms of q and k go over all heads at once, else over each.</summary>
    public bool NormsWholeRows { get; init; }

    /// <summary>By which of the decoder's angles q and k turn with the position; null: they do not.</summary>
    public int? Rotary { get; init; } = 0;

    public IEnumerable<Projection> Projections => Down is null ? [.. Qkv, O] : [.. Qkv, O, .. GateUp, Down];
}

/// <summary>What becomes of the answer of attention or of the feed-forward before the stream takes it: a norm, or a factor.</summary>
internal sealed record SublayerEnd(Site? Norm, double Scale)
{
    public static readonly SublayerEnd Plain = new(null, 1);
}

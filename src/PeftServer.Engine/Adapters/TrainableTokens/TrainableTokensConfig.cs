using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.TrainableTokens;

/// <summary>
/// Trainable tokens: chosen rows of the embedding train, and nothing else.
/// <see href="https://huggingface.co/docs/peft/package_reference/trainable_tokens">PEFT's description</see>.
/// </summary>
public sealed record TrainableTokensConfig : AdapterConfig
{
    /// <summary>The embeddings. Absent: the model's token embedding.</summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>Ids of the tokens whose rows train.</summary>
    [Length(1, 1000000)]
    public IReadOnlyList<int> TokenIndices { get; init; } = [];

    /// <summary>Rows start as the frozen ones; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    public override Adapter CreateAdapter(PretrainedModel model)
    {
        var name = (model.TokenEmbedding ?? model.Sites().OfType<Embedding>().First()).Path;
        return new TrainableTokensAdapter(TargetModules is null ? this with { TargetModules = ModuleSelector.Of(name[(name.LastIndexOf('.') + 1)..]) } : this, model);
    }
}

/// <summary>Trainable rows at the embeddings that are named, and at the heads that share them.</summary>
internal sealed class TrainableTokensAdapter : Adapter
{
    public TrainableTokensAdapter(TrainableTokensConfig config, PretrainedModel model)
        : base(config, model)
    {
        foreach (var site in Adapters.TargetModules.Select(model, config.TargetModules!))
        {
            var embedding = site as Embedding ?? throw new AdapterException("target_modules", $"{site.Path} is not an embedding.");
            var rows = new TokenDelta(embedding, TokenRows.Checked(embedding, config.TokenIndices).Ids, "", config.InitWeights);
            Attach(site, rows);
            foreach (var head in TokenRows.Tied(model, embedding))
            {
                Attach(head, new TokenDelta.TiedHead(rows, saved: true));
            }
        }
    }
}

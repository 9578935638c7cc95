using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Cpt;

/// <summary>Embeddings of tokens, frozen, and a bounded trained addition to each.</summary>
internal sealed class CptEncoder(CptConfig config) : PromptEncoder
{
    /// <summary>How far what is no template and no input may move: practically nowhere.</summary>
    private const double NoMove = 1e-10;

    private readonly Weight _embedding = new(config.NumVirtualTokens, config.TokenDim!.Value);
    private readonly Weight _delta = new(config.NumVirtualTokens, config.TokenDim!.Value) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> Weights => [("embedding.weight", _embedding), ("delta_embedding.weight", _delta)];

    /// <summary>The labels among the tokens; the last example's count most where the loss decays.</summary>
    public override IReadOnlyList<PromptTarget> Targets
    {
        get
        {
            var types = config.CptTokensTypeMask!;
            var examples = types.Where(IsLabel).Distinct().OrderDescending().ToList(); // those of a row stand behind all of them
            var decays = config.OptWeightedLossType == "decay";
            return [.. Enumerable.Range(1, Math.Max(0, types.Count - 1)).Where(i => IsLabel(types[i])).Select(i => new PromptTarget(
                i - 1, config.CptTokenIds[i], decays ? Math.Pow(config.OptLossDecayFactor, examples.IndexOf(types[i]) + 1) : 1))];
        }
    }

    public override Tensor Encode()
    {
        using var scope = NewDisposeScope();
        Project();
        var moves = tensor(config.CptTokensTypeMask!.Select(type => type % 4 is 1 or 2 or 3).ToArray(), device: _delta.Value.device).unsqueeze(-1); // [P, 1]
        var delta = _delta.Value;
        return _embedding.Value.Plus(delta.where(moves, delta.detach())).MoveToOuterDisposeScope(); // [P, width]; labels get no gradient
    }

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        PromptInit.Embeddings(_embedding, [.. config.CptTokenIds.Select(id => id >= 0 && id < model.Config.VocabSize
            ? (long)id
            : throw new AdapterException("cpt_token_ids", $"{id} is no token of this model: it has {model.Config.VocabSize}."))], model);
        _delta.Zeros(model.Device);
    }

    public override void Take(Tensor rows)
    {
        _embedding.Set(rows.to(ScalarType.Float32, copy: true));
        _delta.Set(zeros_like(_embedding.Value));
    }

    private static bool IsLabel(int type) => type > 0 && type % 4 == 0;

    /// <summary>Shortens what has moved too far. The weight itself changes, so that the optimizer goes on from there.</summary>
    private void Project()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var scale = Math.Sqrt(config.TokenDim!.Value / 2048.0);
        var limits = tensor(
            config.CptTokensTypeMask!.Select(type => (float)(type <= 0 ? NoMove : (type % 4) switch
            {
                1 or 3 => config.OptProjectionFormatEpsilon * scale,
                2 => config.OptProjectionEpsilon * scale,
                _ => NoMove,
            })).ToArray(), device: _delta.Value.device).unsqueeze(-1); // [P, 1]
        var lengths = _delta.Value.norm(-1, keepdim: true, p: 2); // [P, 1]
        _delta.Value.mul_(limits.div(lengths.maximum(limits)));
    }
}

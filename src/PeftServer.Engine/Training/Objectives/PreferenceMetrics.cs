using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>What is told of pairs, under TRL's names. Rewards are β times what the objective prefers by, whatever its loss.</summary>
internal static class PreferenceMetrics
{
    /// <param name="policy">The batch, [all chosen; all rejected].</param>
    /// <param name="chosenLogProbs">Log-probabilities of the chosen completions, [pairs].</param>
    /// <param name="rejectedLogProbs">Those of the rejected ones.</param>
    /// <param name="chosen">What rewards come from: log-ratios to a reference, or log-probabilities where there is none.</param>
    /// <param name="rejected">The same of the rejected.</param>
    /// <param name="beta">Factor of the rewards.</param>
    public static Dictionary<string, Tensor> Of(
        TokenScores policy, Tensor chosenLogProbs, Tensor rejectedLogProbs, Tensor chosen, Tensor rejected, double beta)
    {
        using var frozen = no_grad();
        var (first, all) = (policy.FirstHalf, policy.LogProbs.numel());
        return new Dictionary<string, Tensor>
        {
            ["rewards/chosen"] = chosen.mean().Times(beta),
            ["rewards/rejected"] = rejected.mean().Times(beta),
            ["rewards/margins"] = chosen.Minus(rejected).mean().Times(beta),
            ["rewards/accuracies"] = chosen.gt(rejected).to(ScalarType.Float32).mean(),
            ["logps/chosen"] = chosenLogProbs.mean(),
            ["logps/rejected"] = rejectedLogProbs.mean(),
            ["logits/chosen"] = policy.Logits.narrow(0, 0, first).mean(),
            ["logits/rejected"] = policy.Logits.narrow(0, first, all - first).mean(),
            ["entropy"] = policy.Entropies().mean(),
            ["mean_token_accuracy"] = policy.LogSoftmax.narrow(0, 0, first).argmax(-1).eq(policy.Targets.narrow(0, 0, first)).to(ScalarType.Float32).mean(), // of what is to be learnt
        };
    }
}

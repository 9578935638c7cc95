using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>Makes the optimizer that <see cref="TrainingArguments"/> name.</summary>
public static class OptimizerFactory
{
    /// <summary>An optimizer of everything that <paramref name="adapter"/> trains. Throws where the two do not go together.</summary>
    public static Optimizer Create(Adapter adapter, TrainingArguments arguments)
    {
        var args = arguments.OptimArgs;
        var (beta1, beta2, eps) = (arguments.AdamBeta1, arguments.AdamBeta2, arguments.AdamEpsilon);
        var groups = Groups(adapter, arguments);
        return arguments.Optim switch
        {
            OptimizerName.AdamwTorch or OptimizerName.AdamwTorchFused => new AdamW(groups, beta1, beta2, eps, args.Amsgrad),
            OptimizerName.Adamw8Bit or OptimizerName.AdamwBnb8Bit => new AdamW8Bit(groups, beta1, beta2, eps),
            OptimizerName.Adafactor => new Adafactor(groups, new AdafactorSettings()),
            OptimizerName.Lion => new Lion(groups, beta1, beta2),
            OptimizerName.Sgd => new Sgd(groups, args.Momentum ?? 0, nesterov: args.Nesterov ?? false),
            OptimizerName.Adagrad => new Adagrad(groups),
            OptimizerName.Rmsprop => new RmsProp(groups, args.Alpha, eps, args.Momentum ?? 0, args.Centered),
            OptimizerName.Muon => new Muon(groups, args.Momentum ?? 0.95, args.Nesterov ?? true, args.AdjustLrFn is MuonAdjustment.MatchRmsAdamw),
            OptimizerName.LoraFa => new LoraFa(groups, Pairs(adapter, arguments), beta1, beta2, eps),
            OptimizerName.RiemannianAdamw => new RiemannianAdamW(groups, Pairs(adapter, arguments), beta1, beta2, eps, args.Regularization),
            _ => throw new ArgumentOutOfRangeException(nameof(arguments), arguments.Optim, "There is no such optimizer."),
        };
    }

    private static IReadOnlyList<ParameterGroup> Groups(Adapter adapter, TrainingArguments arguments)
    {
        if (arguments.Optim is OptimizerName.LoraFa)
        {
            foreach (var pair in Pairs(adapter, arguments))
            {
                pair.A.Value.requires_grad = false;
                pair.A.Trainable = false;
            }
        }

        return arguments.LoraplusLrRatio is { } ratio
            ? ParameterGroups.LoraPlus(adapter.Trainable, ratio, arguments.LoraplusLrEmbedding / arguments.LearningRate, arguments.WeightDecay)
            : ParameterGroups.ByDecay(adapter.Trainable, arguments.WeightDecay);
    }

    private static List<LoraPair> Pairs(Adapter adapter, TrainingArguments arguments) => ParameterGroups.Pairs(adapter).ToList() is { Count: > 0 } pairs
        ? pairs
        : throw new TrainingException($"optim: {arguments.Optim} is for LoRA, but this adapter has no LoRA layer. Take adamw_torch.");
}

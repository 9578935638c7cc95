using System.Text.Json;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Goldens.Tests;

/// <summary>One case of <see cref="ObjectiveCases"/>: TRL's batch without its padding, and what our objective makes of it.</summary>
internal abstract class ObjectiveCase(Golden golden)
{
    protected Golden Golden { get; } = golden;

    protected JsonElement Settings { get; } = golden.Meta.GetProperty("hyperparameters");

    /// <summary>One step: a loss for each micro-batch.</summary>
    public abstract IReadOnlyList<ObjectiveResult> MicroBatches();

    public static ObjectiveCase Of(Golden golden, PretrainedModel model, Adapter adapter)
    {
        var objective = golden.Meta.GetProperty("objective").GetString();
        if (model is ClassificationModel reader)
        {
            return objective is "reward" ? new RewardCase(golden, reader, adapter) : new EmbeddingCase(golden, reader, adapter);
        }

        var causal = (CausalLanguageModel)model;
        return objective switch
        {
            "sft" => new SftCase(golden, causal, adapter),
            "dpo" => new DpoCase(golden, causal, adapter),
            "cpo" or "orpo" => new ReferenceFreeCase(golden, causal, adapter),
            "kto" => new KtoCase(golden, causal, adapter),
            "grpo" => new GrpoCase(golden, causal, adapter),
            _ => throw new NotSupportedException($"The objective '{objective}' of this case is not supported yet."),
        };
    }

    /// <summary>What stands before the names of each micro-batch's tensors.</summary>
    protected IReadOnlyList<string> Prefixes => Golden.Has("micro0.input_ids")
        ? [.. Enumerable.Range(0, Settings.GetProperty("gradient_accumulation_steps").GetInt32()).Select(i => $"micro{i}.")]
        : [""];

    /// <summary>The setting <paramref name="name"/>; null where the case has none.</summary>
    protected T? Setting<T>(string name) => Settings.TryGetProperty(name, out var value) ? value.Deserialize<T>(PeftJson.Options) : default;

    /// <summary>A padded batch without its padding; <paramref name="marks"/> are nonzero (or not −100) at targets.</summary>
    protected SftBatch Batch(string ids, string mask, string marks, bool areLabels) => SftBatch.Of(Rows(ids, mask, marks, areLabels));

    protected IEnumerable<TrainingRow> Rows(string ids, string mask, string marks, bool areLabels)
    {
        var (rows, places) = Golden.Rows(ids, mask);
        var flags = Golden[marks].data<long>().ToArray();
        return rows.Zip(places, (row, at) => new TrainingRow(row, [.. at.Select(place => areLabels ? flags[place] != -100 : flags[place] != 0)], 1));
    }

    protected static Tensor Frozen(CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch)
    {
        using var frozen = no_grad();
        return TokenScores.Of(model, adapters, batch, null).LogProbs;
    }
}

internal sealed class SftCase(Golden golden, CausalLanguageModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        var batches = Prefixes.Select(prefix => Golden.Has("position_ids") ? Packed() : Batch($"{prefix}input_ids", $"{prefix}attention_mask", $"{prefix}labels", areLabels: true)).ToList();
        var targets = batches.Sum(batch => batch.Targets.Length);
        var settings = new SftSettings { LossType = Setting<SftLossType>("loss_type"), LabelSmoothingFactor = Setting<double>("label_smoothing_factor") };
        return [.. batches.Select(batch => Sft.Loss(TokenScores.Of(model, [adapter], batch, null), targets, settings))];
    }

    /// <summary>Documents one after another in one row: each begins where positions start again.</summary>
    private SftBatch Packed()
    {
        var (ids, labels, positions) = (Golden["input_ids"].data<long>().ToArray(), Golden["labels"].data<long>().ToArray(), Golden["position_ids"].data<long>().ToArray());
        var starts = Enumerable.Range(0, ids.Length).Where(i => positions[i] == 0).Append(ids.Length).ToList();
        return SftBatch.Of(starts.Zip(starts.Skip(1), (from, to) =>
            new TrainingRow([.. ids[from..to].Select(id => (int)id)], [.. labels[from..to].Select(label => label != -100)], 1)));
    }
}

internal sealed class DpoCase(Golden golden, CausalLanguageModel model, Adapter adapter) : ObjectiveCase(golden)
{
    // The reference is frozen, whether it is the base or a copy of the adapter as it begins: once is enough.
    private readonly Dictionary<string, Tensor> _references = [];

    public override IReadOnlyList<ObjectiveResult> MicroBatches() => [.. Prefixes.Select(prefix =>
    {
        var batch = Batch($"{prefix}input_ids", $"{prefix}attention_mask", $"{prefix}completion_mask", areLabels: false);
        var isCopy = Golden.Meta.TryGetProperty("reference", out var reference) && reference.GetString() == "copy of init/";
        if (!_references.TryGetValue(prefix, out var logProbs))
        {
            _references[prefix] = logProbs = Frozen(model, isCopy ? [adapter] : [], batch).DetachFromDisposeScope();
        }

        var result = Dpo.Loss(TokenScores.Of(model, [adapter], batch, null), logProbs, Variant());
        return result with { Loss = Engine.Native.TensorArithmetic.Times(result.Loss, 1.0 / Prefixes.Count) };
    })];

    private DpoSettings Variant() => new()
    {
        LossType = Settings.TryGetProperty("loss_type", out _) ? Setting<OneOrMany<DpoLossType>>("loss_type")! : new DpoSettings().LossType,
        LossWeights = Setting<double[]>("loss_weights"),
        Beta = Setting<double>("beta"),
        LabelSmoothing = Setting<double>("label_smoothing"),
        FDivergenceType = Setting<FDivergence>("f_divergence_type"),
        FAlphaDivergenceCoef = Setting<double>("f_alpha_divergence_coef"),
        LdAlpha = Setting<double?>("ld_alpha"),
        UseWeighting = Setting<bool>("use_weighting"),
        DiscopopTau = Setting<double>("discopop_tau"),
    };
}

internal sealed class ReferenceFreeCase(Golden golden, CausalLanguageModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        var (chosen, rejected) = (Side("chosen"), Side("rejected"));
        if (Golden.Meta.GetProperty("objective").GetString() is "cpo")
        {
            return [Cpo.Loss(TokenScores.Of(model, [adapter], SftBatch.Of([.. chosen, .. rejected]), null), Variant())];
        }

        TrainingRow[] rows = [.. chosen.Select(row => row with { Trained = [.. row.Trained.Select(_ => true)] }), .. rejected];
        var completion = chosen.SelectMany(row => row.Trained.Skip(1)).Select(each => each ? 1f : 0f).Concat(rejected.SelectMany(row => Enumerable.Repeat(1f, row.TrainedCount)));
        return [Orpo.Loss(TokenScores.Of(model, [adapter], SftBatch.Of(rows), null), tensor(completion.ToArray()), new OrpoSettings { Beta = Setting<double>("beta") })];
    }

    private List<TrainingRow> Side(string side) => [.. Rows($"{side}_input_ids", $"{side}_attention_mask", $"{side}_labels", areLabels: true)];

    private CpoSettings Variant() => new()
    {
        LossType = Setting<CpoLossType>("loss_type"),
        Beta = Setting<double>("beta"),
        LabelSmoothing = Setting<double>("label_smoothing"),
        CpoAlpha = Setting<double>("cpo_alpha"),
        SimpoGamma = Setting<double>("simpo_gamma"),
        Alpha = Setting<double>("alpha"),
    };
}

internal sealed class KtoCase(Golden golden, CausalLanguageModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        var settings = new KtoSettings
        {
            LossType = Setting<KtoLossType>("loss_type"),
            Beta = Setting<double>("beta"),
            DesirableWeight = Setting<double>("desirable_weight"),
            UndesirableWeight = Setting<double>("undesirable_weight"),
        };
        var batch = Batch("input_ids", "attention_mask", "completion_mask", areLabels: false);
        var divergence = settings.LossType is KtoLossType.Kto ? Divergence() : null;
        var policy = TokenScores.Of(model, [adapter], batch, null);
        return [Kto.Loss(policy, Frozen(model, [], batch), Golden["label"].data<bool>().ToArray(), divergence, settings)];
    }

    private Tensor Divergence()
    {
        using var frozen = no_grad();
        var mismatched = Batch("KL_input_ids", "KL_attention_mask", "KL_completion_mask", areLabels: false);
        return Kto.Divergence(TokenScores.Of(model, [adapter], mismatched, null), Frozen(model, [], mismatched));
    }
}

internal sealed class GrpoCase(Golden golden, CausalLanguageModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        var settings = Variant();
        var (prompts, completions) = (Golden.Rows("prompt_ids", "prompt_mask").Rows, Golden.Rows("completion_ids", "completion_mask").Rows);
        var rows = prompts.Zip(completions, (prompt, completion) =>
            new TrainingRow([.. prompt, .. completion], [.. prompt.Select(_ => false), .. completion.Select(_ => true)], 1)).ToList();
        var advantages = Advantages(settings);
        var micro = Settings.GetProperty("gradient_accumulation_steps").GetInt32();
        var (size, targets, start) = (rows.Count / micro, rows.Sum(row => row.TrainedCount), 0);
        ((long)targets).ShouldBe(Golden["num_items_in_batch"].item<long>());
        var results = new List<ObjectiveResult>();
        for (var i = 0; i < micro; i++)
        {
            var batch = SftBatch.Of(rows.Skip(i * size).Take(size));
            var policy = TokenScores.Of(model, [adapter], batch, null, settings.Temperature);
            results.Add(Grpo.Loss(
                policy, advantages[(i * size)..((i + 1) * size)], PerToken("old_per_token_logps", start, batch), PerToken("ref_per_token_logps", start, batch), new GrpoShare(targets, 1.0 / micro, 1.0 / micro), settings));
            start += batch.Targets.Length;
        }

        return results;
    }

    private double[] Advantages(GrpoSettings settings)
    {
        var advantages = GrpoAdvantages.Of([.. Golden["rewards"].data<float>().ToArray().Select(reward => (double)reward)], settings.NumGenerations, settings.ScaleRewards);
        Golden.ShouldAgree("advantages", tensor(advantages), Golden["advantages"], 1e-5);
        return advantages;
    }

    /// <summary>The targets of a micro-batch out of a padded tensor of log-probabilities.</summary>
    private Tensor? PerToken(string name, int start, SftBatch batch) => Golden.Has(name)
        ? Golden[name].masked_select(Golden["completion_mask"].to(ScalarType.Bool)).narrow(0, start, batch.Targets.Length)
        : null;

    private GrpoSettings Variant() => new()
    {
        LossType = Setting<GrpoLossType>("loss_type"),
        NumGenerations = Setting<int>("num_generations"),
        MaxCompletionLength = Setting<int>("max_completion_length"),
        Beta = Setting<double>("beta"),
        Epsilon = Setting<double>("epsilon_low"),
        EpsilonHigh = Setting<double>("epsilon_high"),
        Delta = Setting<double?>("delta"),
        ImportanceSamplingLevel = Setting<ImportanceSamplingLevel>("importance_sampling_level"),
        ScaleRewards = Setting<RewardScale>("scale_rewards"),
        Temperature = Setting<double>("temperature"),
        TopEntropyQuantile = Setting<double>("top_entropy_quantile"),
        EntropyCoef = Setting<double>("entropy_coef"),
        UseBiasCorrectionKl = Setting<bool>("use_bias_correction_kl"),
        SapoTemperatureNeg = Setting<double>("sapo_temperature_neg"),
        SapoTemperaturePos = Setting<double>("sapo_temperature_pos"),
    };
}

internal sealed class RewardCase(Golden golden, ClassificationModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        using var batch = ForwardBatch.Packed(Golden.Rows().Rows, [adapter], CPU);
        var margins = Golden.Has("margin") ? Golden["margin"] : null;
        return [Reward.Loss(model.Predict(batch).squeeze(-1), margins, new RewardSettings { CenterRewardsCoefficient = Setting<double?>("center_rewards_coefficient") })];
    }
}

internal sealed class EmbeddingCase(Golden golden, ClassificationModel model, Adapter adapter) : ObjectiveCase(golden)
{
    public override IReadOnlyList<ObjectiveResult> MicroBatches()
    {
        var columns = Enumerable.Range(0, 3).Where(column => Golden.Has($"column{column}.input_ids")).Select(Embedded).ToList();
        var settings = new EmbeddingSettings
        {
            Scale = Setting<double>("scale"),
            Symmetric = Setting<string[]>("directions") is { Length: 2 },
        };
        return Setting<string>("loss") is "CoSENTLoss"
            ? [Contrastive.CosentLoss(columns[0], columns[1], Golden["labels"].data<float>().ToArray(), settings)]
            : [Contrastive.Loss(columns, settings)];
    }

    private Tensor Embedded(int column)
    {
        using var batch = ForwardBatch.Packed(Golden.Rows($"column{column}.input_ids", $"column{column}.attention_mask").Rows, [adapter], CPU);
        return Pooling.Mean(model.Predict(batch), batch);
    }
}

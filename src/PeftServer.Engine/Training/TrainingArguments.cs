using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Data;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Training;

/// <summary>How to train, under the names of Hugging Face's <c>TrainingArguments</c> and TRL's <c>SFTConfig</c>.</summary>
public sealed record TrainingArguments
{
    /// <summary>Passes over the training file. <see cref="MaxSteps"/> wins where it is given.</summary>
    [Range(0.001, 10_000)]
    public double NumTrainEpochs { get; init; } = 3;

    /// <summary>Optimizer steps; −1 to go by epochs.</summary>
    [Range(-1, int.MaxValue)]
    public int MaxSteps { get; init; } = -1;

    /// <summary>Rows that go through the model together.</summary>
    [Range(1, 4096)]
    public int PerDeviceTrainBatchSize { get; init; } = 8;

    /// <summary>Micro-batches to an optimizer step. The loss is weighted by tokens over all of them.</summary>
    [Range(1, 4096)]
    public int GradientAccumulationSteps { get; init; } = 1;

    /// <summary>Highest learning rate.</summary>
    [Range(0.0, 100.0)]
    public double LearningRate { get; init; } = 2e-4;

    /// <summary>Shape of the learning rate over the steps.</summary>
    public LearningRateSchedule LrSchedulerType { get; init; } = LearningRateSchedule.Linear;

    /// <summary>What the schedule takes besides.</summary>
    public ScheduleArguments LrSchedulerKwargs { get; init; } = new();

    /// <summary>What turns gradients into steps.</summary>
    public OptimizerName Optim { get; init; }

    /// <summary>What the optimizer takes besides.</summary>
    public OptimizerArguments OptimArgs { get; init; } = new();

    /// <summary>LoRA+: B learns so many times as fast as A (16 is usual); absent: alike.</summary>
    [Range(1e-3, 1e4)]
    public double? LoraplusLrRatio { get; init; }

    /// <summary>LoRA+: the rate of embeddings.</summary>
    [Range(0.0, 100.0)]
    public double LoraplusLrEmbedding { get; init; } = 1e-6;

    /// <summary>Steps of rising learning rate; wins over <see cref="WarmupRatio"/> when above 0.</summary>
    [Range(0, int.MaxValue)]
    public int WarmupSteps { get; init; }

    /// <summary>Share of all steps with rising learning rate.</summary>
    [Range(0.0, 1.0)]
    public double WarmupRatio { get; init; }

    /// <summary>Decay of every trained tensor but biases and norms.</summary>
    [Range(0.0, 10.0)]
    public double WeightDecay { get; init; }

    [Range(0.0, 1.0)]
    public double AdamBeta1 { get; init; } = 0.9;

    [Range(0.0, 1.0)]
    public double AdamBeta2 { get; init; } = 0.999;

    [Range(0.0, 1.0)]
    public double AdamEpsilon { get; init; } = 1e-8;

    /// <summary>The norm of all gradients is clipped to this; 0 turns clipping off.</summary>
    [Range(0.0, 1e9)]
    public double MaxGradNorm { get; init; } = 1.0;

    /// <summary>Rows longer than this many tokens are cut; absent: what the model takes.</summary>
    [Range(1, 10_000_000)]
    public int? MaxLength { get; init; }

    /// <summary>
    /// Put short rows together up to max_length tokens (without one, up to the longest row), each seeing itself alone; a batch then counts these.
    /// For supervised training.
    /// </summary>
    public bool Packing { get; init; }

    /// <summary>The format of the rows; absent: known by their fields.</summary>
    public DatasetFormat? DatasetFormat { get; init; }

    /// <summary>Draws of initial weights, order of rows, dropout.</summary>
    [Range(0, int.MaxValue)]
    public int Seed { get; init; } = 42;

    /// <summary>Base weights and activations in bfloat16. Absent: true on CUDA, false on CPUs.</summary>
    public bool? Bf16 { get; init; }

    /// <summary>
    /// In what the base model's matrices are held while the adapter trains: nf4 takes a quarter of the memory (QLoRA), fp8 half of it, and
    /// is faster on GPUs with 8-bit floats. The adapter itself stays in float32.
    /// </summary>
    public BaseQuantization Quantization { get; init; }

    /// <summary>Steps between metric events.</summary>
    [Range(1, int.MaxValue)]
    public int LoggingSteps { get; init; } = 1;

    /// <summary>When the validation file is evaluated; absent: every <see cref="EvalSteps"/> where that is given, else every epoch.</summary>
    public IntervalStrategy? EvalStrategy { get; init; }

    /// <summary>Steps between evaluations on the validation file.</summary>
    [Range(1, int.MaxValue)]
    public int? EvalSteps { get; init; }

    /// <summary>When checkpoints to resume from are written; absent: every <see cref="SaveSteps"/> where that is given, else every epoch.</summary>
    public SaveStrategy? SaveStrategy { get; init; }

    /// <summary>Steps between checkpoints.</summary>
    [Range(1, int.MaxValue)]
    public int? SaveSteps { get; init; }

    /// <summary>Checkpoints that are kept; absent: the newest.</summary>
    [Range(1, 1000)]
    public int? SaveTotalLimit { get; init; }

    /// <summary>The adapter that comes out is that of the best evaluation, not of the last step.</summary>
    public bool LoadBestModelAtEnd { get; init; }

    /// <summary>What decides which evaluation is best: loss, accuracy, f1, exact_match, … as the validation metrics are called; absent: loss.</summary>
    public string? MetricForBestModel { get; init; }

    /// <summary>Whether more of that metric is better; absent: yes, unless it is a loss or the perplexity.</summary>
    public bool? GreaterIsBetter { get; init; }

    /// <summary>Stop after so many evaluations without gain; absent: train to the end.</summary>
    [Range(1, 10_000)]
    public int? EarlyStoppingPatience { get; init; }

    /// <summary>What counts as gain: more than this.</summary>
    [Range(0.0, 1e9)]
    public double EarlyStoppingThreshold { get; init; }

    /// <summary>NEFTune: noise on the embeddings of training rows, 5 to 15 is usual; absent: none.</summary>
    [Range(0.0, 1e3)]
    public double? NeftuneNoiseAlpha { get; init; }

    /// <summary>A loss of so many times the median of the steps before stops the run; 0: never.</summary>
    [Range(0.0, 1e9)]
    public double LossSpikeFactor { get; init; } = 20;

    /// <summary>Where metrics go besides the events: none, or event files for TensorBoard in the run folder.</summary>
    public ReportTarget ReportTo { get; init; }

    /// <summary>Use the hand-written kernels where they apply (CUDA). False: plain tensor code everywhere.</summary>
    public bool Fast { get; init; } = true;

    /// <summary>
    /// Activations are computed again on the way back instead of kept: less memory for about a third more time. Absent: where memory asks for it, in the hand-written step
    /// layer by layer, elsewhere once a single row does not fit. True: always; false: never.
    /// </summary>
    public bool? GradientCheckpointing { get; init; }

    /// <summary>The same bytes from the same seed on a GPU too, at some cost in speed.</summary>
    public bool Deterministic { get; init; }

    /// <summary>Every value out of its range: field and remedy.</summary>
    public IReadOnlyList<ValidationResult> Faults()
    {
        var faults = new List<ValidationResult>();
        Validator.TryValidateObject(this, new ValidationContext(this), faults, validateAllProperties: true);
        if (EvalStrategy is IntervalStrategy.No && NeedsEvaluation is { } field)
        {
            faults.Add(new($"eval_strategy is no, but {field} needs evaluations. Make it steps or epoch.", [nameof(EvalStrategy)]));
        }

        if (SaveStrategy is Training.SaveStrategy.Steps && SaveSteps is null)
        {
            faults.Add(new("save_strategy is steps, but save_steps is missing.", [nameof(SaveSteps)]));
        }

        return faults;
    }

    /// <summary>A field that has no meaning without evaluations; null where there is none.</summary>
    [JsonIgnore]
    public string? NeedsEvaluation =>
        LoadBestModelAtEnd ? "load_best_model_at_end"
        : EarlyStoppingPatience is not null ? "early_stopping_patience"
        : MetricForBestModel is not null ? "metric_for_best_model"
        : SaveStrategy is Training.SaveStrategy.Best ? "save_strategy"
        : null;
}

/// <summary>Where metrics go besides the events.</summary>
public enum ReportTarget
{
    None,
    Tensorboard,
}

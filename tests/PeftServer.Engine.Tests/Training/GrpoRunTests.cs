using PeftServer.Engine.Evaluation.Graders;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Runs that learn from answers of their own: how they are counted, how often they are learnt from, and what a resumed run needs of them.</summary>
public sealed class GrpoRunTests
{
    private static readonly string[] Prompts = [.. Enumerable.Range(0, 6).Select(i => $$"""{"messages": [{"role": "user", "content": "Say the{{i}}"}], "answer": "the"}""")];

    [Fact]
    public void Run_Grpo_RewardsWhatTheGraderLikes()
    {
        using var run = Run(Settings, steps: 4, rate: 2e-2);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Metrics("train_reward").Count().ShouldBe(4);
        run.Metrics("train_reward").ShouldAllBe(reward => reward >= 0 && reward <= 1);
        run.Metrics("train_completions/mean_length").ShouldAllBe(length => length >= 1 && length <= 6);
    }

    [Fact]
    public void Run_Evaluated_TellsTheRewardsOfItsPrompts()
    {
        using var run = Run(Settings, steps: 1, evaluated: Prompts);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Metrics("valid_reward").Single().ShouldBeInRange(0, 1);
        double.IsFinite(run.Metrics("valid_loss").Single()).ShouldBeTrue();
    }

    /// <summary>Two steps on the same completions: the second finds the policy moved, and clips. The third has new ones.</summary>
    [Fact]
    public void Run_SeveralIterations_LearnsFromTheSameCompletionsAndClips()
    {
        using var run = Run(Settings with { NumIterations = 2, Epsilon = 0.01 }, steps: 4, rate: 1e-2, batch: 6);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        var (rewards, lengths, clipped) = (run.Metrics("train_reward").ToList(), run.Metrics("train_reward_std").ToList(), run.Metrics("train_clip_ratio/region_mean").ToList());
        rewards[1].ShouldBe(rewards[0]);
        rewards[3].ShouldBe(rewards[2]);
        lengths[1].ShouldBe(lengths[0]);
        (rewards[2], lengths[2]).ShouldNotBe((rewards[0], lengths[0]));
        clipped[0].ShouldBe(0);
        clipped[1].ShouldBeGreaterThan(0);
        clipped[2].ShouldBe(0);
    }

    /// <summary>What wrote the completions is what learns from them the first time, whether its log-probabilities are kept or not.</summary>
    [Fact]
    public void Run_OldPolicyKept_BeginsAsOneThatKeepsNone()
    {
        using var once = Run(Settings with { NumIterations = 1 }, steps: 1);
        using var twice = Run(Settings with { NumIterations = 2 }, steps: 1);
        once.Run();
        twice.Run();

        twice.Losses.Single().ShouldBe(once.Losses.Single(), 1e-6);
        WorstDifference(once, twice).ShouldBeLessThan(1e-4);
    }

    [Theory]
    [InlineData(1, null, 1)]
    [InlineData(2, null, 1)]
    [InlineData(2, null, 3)]
    [InlineData(1, 4, 5)]
    [InlineData(3, 2, 4)]
    public void Run_StoppedWithinAGeneration_GivesTheSameBytes(int iterations, int? stepsPerGeneration, int stop)
    {
        var settings = Settings with { NumIterations = iterations, StepsPerGeneration = stepsPerGeneration };
        using var whole = Run(settings, steps: 6);
        using var stopped = Run(settings, steps: 6);
        whole.Run();
        stopped.Run(stop, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);
        stopped.Run().ShouldBe(TrainingOutcome.Succeeded);

        stopped.Losses.ShouldBe(whole.Losses);
        File.ReadAllBytes(stopped.Weights).AsSpan().SequenceEqual(File.ReadAllBytes(whole.Weights)).ShouldBeTrue();
    }

    [Theory]
    [InlineData(GrpoLossType.Grpo)]
    [InlineData(GrpoLossType.Bnpo)]
    [InlineData(GrpoLossType.DrGrpo)]
    [InlineData(GrpoLossType.Dapo)]
    [InlineData(GrpoLossType.Luspo)]
    public void Run_MicroBatchThatDoesNotFit_IsSplitWithTheSameGradients(GrpoLossType type)
    {
        var settings = Settings with { LossType = type, EntropyCoef = 0.1, NumIterations = 2 };
        using var whole = Run(settings, steps: 2);
        using var split = Run(settings, steps: 2);
        whole.Run();
        split.Run(beforeMicroBatch: rows =>
        {
            if (rows > 1)
            {
                throw new InvalidOperationException("CUDA out of memory");
            }
        }).ShouldBe(TrainingOutcome.Succeeded);

        split.Messages.ShouldContain("does not fit into memory");
        split.Losses[0].ShouldBe(whole.Losses[0], 1e-5);
        split.Metrics("grad_norm").First().ShouldBe(whole.Metrics("grad_norm").First(), 1e-4);
    }

    [Fact]
    public void Run_WithoutGrader_NamesTheField()
    {
        using var run = Run(new GrpoSettings(), steps: 1);

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldStartWith("grader: grpo needs a grader");
    }

    [Theory]
    [InlineData(4, null, null, "num_generations is 3, but 4 completions are written at once (per_device_train_batch_size 4 × steps_per_generation 1)")]
    [InlineData(3, null, 10, "generation_batch_size is 10; it must be a multiple of per_device_train_batch_size, 3")]
    [InlineData(3, 2, 6, "steps_per_generation and generation_batch_size say the same thing")]
    [InlineData(3, 7, null, "The training file has 6 prompts that can be used, fewer than the 7 of one generation")]
    public void Run_CountsThatDoNotFit_SaysWhich(int batch, int? steps, int? size, string message)
    {
        using var run = Run(Settings with { StepsPerGeneration = steps, GenerationBatchSize = size }, steps: 1, batch: batch);

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain(message);
    }

    /// <summary>The figure in TRL's GRPOTrainer on one device: 2 generations, micro-batches of 6, 2 to a step, 4 to a generation.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Window_OfTrlsFigure_TakesASliceOfAGenerationAtATime(int iterations)
    {
        var arguments = new TrainingArguments { PerDeviceTrainBatchSize = 6, GradientAccumulationSteps = 2, NumTrainEpochs = 2, Seed = 5 };
        var plan = new RolloutPlan(40, arguments, Settings with { NumGenerations = 2, StepsPerGeneration = 4, NumIterations = iterations });

        plan.StepsPerEpoch.ShouldBe(3 * 2 * iterations); // 3 generations of 12 prompts; the other 4 prompts wait
        plan.TotalSteps.ShouldBe(2 * plan.StepsPerEpoch);
        plan.KeepsOldPolicy.ShouldBeTrue();
        var learnt = Enumerable.Range(0, plan.TotalSteps).SelectMany(plan.Window).SelectMany(slots => slots).Select(plan.Completion).ToList();
        learnt.Select(each => each.Generation).ShouldBe(Enumerable.Range(0, 6).SelectMany(generation => Enumerable.Repeat(generation, 24 * iterations)));
        foreach (var iteration in learnt.Chunk(24))
        {
            iteration.Select(each => each.Completion).Order().ShouldBe(Enumerable.Range(0, 24));
        }

        plan.Window(0).Select(slots => slots.Length).ShouldBe([6, 6]);
        Enumerable.Range(0, 3).SelectMany(plan.PromptsOf).Distinct().Count().ShouldBe(36);
        plan.PromptsOf(3).ShouldNotBe(plan.PromptsOf(0)); // another epoch, another order
    }

    private static GrpoSettings Settings => new()
    {
        NumGenerations = 3,
        MaxCompletionLength = 6,
        Beta = 0.04,
        Grader = new TextSimilarityGrader { Input = "{{ sample.output_text }}", Reference = "{{ item.answer }}", EvaluationMetric = SimilarityMetric.FuzzyMatch },
    };

    private static TrainingRun Run(GrpoSettings settings, int steps, double rate = 5e-3, int batch = 3, string[]? evaluated = null) => new(
        Prompts, new TrainingMethod { Type = TrainingMethodType.Grpo, Grpo = settings },
        arguments => arguments with { MaxSteps = steps, LearningRate = rate, PerDeviceTrainBatchSize = batch, SaveSteps = 1, LossSpikeFactor = 0 }, dropout: 0, evaluated: evaluated);

    private static double WorstDifference(TrainingRun one, TrainingRun other)
    {
        using var scope = NewDisposeScope();
        using var before = SafetensorsFile.Open(one.Weights);
        using var after = SafetensorsFile.Open(other.Weights);
        return before.Header.Entries.Keys.Max(name => before.Tensor(name).sub(after.Tensor(name)).abs().max().item<float>());
    }
}

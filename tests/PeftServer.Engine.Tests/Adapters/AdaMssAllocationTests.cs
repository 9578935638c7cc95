using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdaMss;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>Which groups AdaMSS lets go on training, and that the others stay as they are.</summary>
public sealed class AdaMssAllocationTests
{
    private static readonly AdaMssConfig Config = new()
    {
        R = 8,
        NumSubspaces = 3,
        SubspaceRank = 1,
        InitWeights = null,
        TargetModules = ModuleSelector.Of("q_proj", "v_proj"), // 12 groups
        UseAsa = true,
        AsaTargetSubspaces = 4,
        InitWarmup = 1,
        FinalWarmup = 5,
        MaskInterval = 2,
        AsaScheduleExponent = 1,
    };

    /// <summary>Steps 2 and 4 choose: the schedule wants 10 and 6 of 12, and one fewer goes on each time.</summary>
    [Fact]
    public void AfterStep_Schedule_LeavesOneFewerThanItWants()
    {
        using var scope = NewDisposeScope();
        using var run = new Run(Config);

        run.Steps(7).ShouldBe([12, 12, 9, 9, 5, 5, 5]);
    }

    [Fact]
    public void AfterStep_StoppedGroups_StayWhereTheyAreUnderDecayAndMomentum()
    {
        using var scope = NewDisposeScope();
        using var run = new Run(Config);
        run.Steps(3);
        var (stopped, others) = (run.Weights(trains: false), run.Weights(trains: true));
        var before = stopped.ConvertAll(weight => weight.Value.clone());
        var moving = others.ConvertAll(weight => weight.Value.clone());

        run.Steps(1);

        stopped.Count.ShouldBe(6);
        stopped.Zip(before).ShouldAllBe(entry => entry.First.Value.equal(entry.Second).all().item<bool>());
        stopped.ShouldAllBe(weight => weight.Value.grad!.count_nonzero(null).item<long>() == 0); // clipping does not see them
        others.Zip(moving).ShouldAllBe(entry => !entry.First.Value.equal(entry.Second).all().item<bool>());
    }

    /// <summary>The group without gradients stops, and with it the one that takes the last place wanted.</summary>
    [Fact]
    public void AfterStep_GroupWithoutGradients_Stops()
    {
        using var scope = NewDisposeScope();
        using var run = new Run(Config with { AsaTargetSubspaces = 11, InitWarmup = 0, FinalWarmup = 1, MaskInterval = 1 });
        var idle = run.Adapter.Trainable.Where(weight => weight.Path.Contains("0.self_attn.q_proj.adamss_", StringComparison.Ordinal) && weight.Path.EndsWith(".1", StringComparison.Ordinal)).ToList();

        run.Steps(2, idle).ShouldBe([12, 10]);

        idle.Count.ShouldBe(2);
        idle.ShouldBeSubsetOf(run.Weights(trains: false));
    }

    [Theory]
    [InlineData("""{ "use_asa": true, "init_warmup": 10, "final_warmup": 10 }""", "init_warmup")]
    [InlineData("""{ "use_asa": true, "mask_interval": 0 }""", "MaskInterval")]
    [InlineData("""{ "use_asa": true, "asa_target_subspaces": 0 }""", "AsaTargetSubspaces")]
    [InlineData("""{ "use_asa": true, "asa_schedule_exponent": 0 }""", "AsaScheduleExponent")]
    [InlineData("""{ "use_asa": true, "asa_importance_beta": 1.5 }""", "AsaImportanceBeta")]
    public void Faults_SettingOutOfRange_NameTheField(string settings, string field)
    {
        var config = System.Text.Json.JsonSerializer.Deserialize<AdapterConfig>($$"""{ "peft_type": "ADAMSS", {{settings[1..]}}""", PeftJson.Options)!;

        config.Faults().ShouldHaveSingleItem().MemberNames.ShouldBe([field]);
    }

    /// <summary>Training on one batch, step by step.</summary>
    private sealed class Run : IDisposable
    {
        private readonly CausalLanguageModel _model = RandomLlama.Create(CPU, ScalarType.Float32);
        private readonly AdamW _optimizer;
        private int _step;

        public Run(AdaMssConfig config)
        {
            Adapter = config.CreateAdapter(_model);
            Adapter.Initialize(3);
            Adapter.SetTraining(true);
            Adapter.BeginTraining(100);
            _optimizer = new AdamW(Adapter.Trainable, 0.9, 0.999, 1e-8, 0.1);
        }

        public Adapter Adapter { get; }

        /// <summary>Takes steps in which <paramref name="idle"/> weights get no gradient; gives how many groups train after each.</summary>
        public List<int> Steps(int count, IReadOnlyList<Weight>? idle = null)
        {
            var left = new List<int>();
            for (var i = 0; i < count; i++)
            {
                using var scope = NewDisposeScope();
                using var batch = ForwardBatch.Packed([[3, 5, 7, 11, 13, 17]], [Adapter], CPU);
                var logits = _model.Logits(_model.Hidden(batch), batch);
                F.cross_entropy(logits, tensor(new long[] { 5, 7, 11, 13, 17, 19 })).backward();
                foreach (var weight in idle ?? [])
                {
                    weight.Value.grad!.zero_();
                }

                _optimizer.Step(1e-2);
                Adapter.AfterStep(_step++);
                _optimizer.ZeroGrad();
                left.Add(Weights(trains: true).Count / 2);
            }

            return left;
        }

        public List<Weight> Weights(bool trains) => [.. Adapter.Trainable.Where(weight => weight.Value.requires_grad == trains)];

        public void Dispose()
        {
            _optimizer.Dispose();
            Adapter.Dispose();
            _model.Dispose();
        }
    }
}

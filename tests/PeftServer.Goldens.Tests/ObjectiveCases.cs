using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Goldens.Tests;

/// <summary>Objectives against TRL: the loss and the metrics of every step, gradients, trained adapters.</summary>
public sealed class ObjectiveCases
{
    public static TheoryData<string> Cases => [.. GoldenFolder.Cases("objectives", "golden.safetensors")];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Objective_Train_GivesTrlsNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("objectives", name));
        using var scope = NewDisposeScope();
        var isReward = golden.Meta.GetProperty("kind").GetString() is "reward"; // one number: a head that the base lacks and the adapter brings
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32, isReward ? ModelHead.SequenceClassification : null, labels: isReward ? ["reward"] : null);
        using var adapter = AdapterFile.Load(Path.Combine(golden.Folder, "init"), model);
        var rate = golden.Meta.GetProperty("optimizer").GetProperty("lr").GetDouble();
        var objective = ObjectiveCase.Of(golden, model, adapter);
        var step = 0;

        AdapterCases.Train(golden, adapter, rate, () =>
        {
            var micro = objective.MicroBatches();
            CheckMetrics(golden, micro, step);
            return Total(golden, micro, step++);
        }, golden["losses"].abs().max().to(ScalarType.Float64).item<double>());

        AdapterCases.CheckSaved(golden, adapter);
    }

    /// <summary>DPO of a run that starts from an adapter, through its task: the reference is a frozen copy of it, as where TRL is given a model that has an adapter.</summary>
    [Fact]
    public void Dpo_FromAStartingAdapter_GivesTrlsNumbers()
    {
        using var golden = new Golden(GoldenFolder.PathOf("objectives", "dpo_reference_copy"));
        using var scope = NewDisposeScope();
        using var model = (CausalLanguageModel)PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        var start = Path.Combine(golden.Folder, "init");
        using var adapter = AdapterFile.Load(start, model);
        using var reference = StartingAdapters.Freeze(start, model);
        var settings = new DpoSettings { Beta = golden.Meta.GetProperty("hyperparameters").GetProperty("beta").GetDouble() };
        PreferenceTask? task = null;
        var first = true;

        AdapterCases.Train(golden, adapter, golden.Meta.GetProperty("optimizer").GetProperty("lr").GetDouble(), () =>
        {
            task ??= new PreferenceTask(Pairs(golden), 64, model, adapter, settings, reference);
            var loss = task.Window([[.. Enumerable.Range(0, task.Rows)]], 0).Single().ForwardBackward(null).Loss;
            if (first)
            {
                loss.item<float>().ShouldBe((float)Math.Log(2)); // both sides are the same to the last bit
                first = false;
            }

            return loss.Plus(Zero(adapter)); // its gradients are there already
        });

        AdapterCases.CheckSaved(golden, adapter);
    }

    private static Tensor Zero(Adapter adapter) => adapter.Trainable.First().Value.sum().Times(0);

    private static PreferenceRow[] Pairs(Golden golden)
    {
        var (rows, places) = golden.Rows();
        var marks = golden["completion_mask"].data<long>().ToArray();
        var answers = rows.Zip(places, (row, at) => (Ids: row, Start: Array.FindIndex(at, place => marks[place] != 0))).ToList();
        var pairs = answers.Count / 2;
        return [.. answers.Take(pairs).Zip(answers.Skip(pairs), (chosen, rejected) => new PreferenceRow(chosen.Ids[..chosen.Start], chosen.Ids[chosen.Start..], rejected.Ids[rejected.Start..], 1))];
    }

    /// <summary>Micro-batches add up; each is what TRL passed to backward.</summary>
    private static Tensor Total(Golden golden, IReadOnlyList<ObjectiveResult> micro, int step)
    {
        if (golden.Has("micro_losses"))
        {
            var all = golden["micro_losses"].to(ScalarType.Float64);
            var (expected, size) = (all.select(0, step), all.abs().max().item<double>());
            for (var i = 0; i < micro.Count; i++)
            {
                var (ours, theirs) = (micro[i].Loss.item<float>(), expected[i].item<double>());
                (Math.Abs(ours - theirs) <= 1e-4 * size).ShouldBeTrue($"loss of micro-batch {i} in step {step}: {ours}, TRL {theirs}");
            }
        }

        return stack(micro.Select(each => each.Loss).ToArray()).sum();
    }

    /// <summary>
    /// Every metric that TRL logs, but for two: CPO's and ORPO's logits/* are means over padding too, which a batch without padding has
    /// none of; and GRPO's low_min and high_max are over processes, of which there is one.
    /// </summary>
    private static void CheckMetrics(Golden golden, IReadOnlyList<ObjectiveResult> micro, int step)
    {
        var isReferenceFree = golden.Meta.GetProperty("objective").GetString() is "cpo" or "orpo";
        foreach (var tensor in golden.Names.Where(name => name.StartsWith("metric.", StringComparison.Ordinal)))
        {
            var name = tensor["metric.".Length..];
            if (name.EndsWith("_min", StringComparison.Ordinal) || name.EndsWith("_max", StringComparison.Ordinal) || (isReferenceFree && name.StartsWith("logits/", StringComparison.Ordinal)))
            {
                continue;
            }

            micro.Count.ShouldBe(1, "metrics are those of one batch");
            micro[0].Metrics.ShouldContainKey(name);
            ShouldBeNear($"{name} of step {step}", micro[0].Metrics[name].item<float>(), golden[tensor][step].item<double>(), 1e-4);
        }
    }

    // The reference's rule for metrics: absolute or relative.
    private static void ShouldBeNear(string what, double actual, double expected, double tolerance) =>
        (Math.Abs(actual - expected) <= tolerance * Math.Max(1, Math.Abs(expected))).ShouldBeTrue($"{what}: {actual}, TRL {expected}");
}

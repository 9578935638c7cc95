using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Adapters.AdapterHub.Composition;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>Several adapters at once against the adapters library: every block it knows, fusion, averages of weights.</summary>
public sealed class AdapterHubCompositionCases
{
    public static TheoryData<string> Fusions => [.. GoldenFolder.Cases("adapterhub", "meta.json").Where(name => name.StartsWith("fusion", StringComparison.Ordinal))];

    public static TheoryData<string> Compositions => [.. GoldenFolder.Cases("adapterhub", "meta.json").Where(name => name.StartsWith("compose", StringComparison.Ordinal))];

    [Theory]
    [MemberData(nameof(Fusions))]
    public void Fusion_LoadTrainSave_GivesTheLibrarysNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapterhub", name));
        using var scope = NewDisposeScope();
        using var model = Model(golden);
        var adapters = Load(golden, model);
        using var fusion = AdapterFusionFile.Load(Path.Combine(golden.Folder, "init", "fusion"), adapters);
        var one = CausalCase.Of(golden, model);

        fusion.TrainableCount.ShouldBe(golden.Meta.GetProperty("trainable").GetInt64());
        CheckShares(golden, fusion, one);
        CheckRegularization(golden, fusion);
        AdapterHubCases.Train(golden, fusion, () => one.TrainingLoss([fusion]));
        one.CheckForward("logits_trained", [fusion], 1e-3);

        var folder = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;
        try
        {
            var trained = Path.Combine(golden.Folder, "trained", "fusion");
            AdapterFusionFile.Save(fusion, folder, golden.Meta.GetProperty("base").GetString()!);
            AdapterHubCases.CheckJson(folder, trained, AdapterFusionFile.ConfigName);

            // A key's bias has a true gradient of zero, so where training took it is chance.
            AdapterHubCases.CheckTensors(folder, trained, AdapterFusionFile.WeightsName, AdapterFusionFile.OldWeightsName, key => key.EndsWith("key.bias", StringComparison.Ordinal));
            using var again = AdapterFusionFile.Load(folder, adapters);
            one.CheckForward("logits_trained", [again], 1e-3);
            using var theirs = AdapterFusionFile.Load(trained, adapters);
            one.CheckForward("logits_trained", [theirs]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
            adapters.ForEach(adapter => adapter.Dispose());
        }
    }

    [Theory]
    [MemberData(nameof(Compositions))]
    public void Composition_OfEveryBlock_GivesTheLibrarysNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapterhub", name));
        using var scope = NewDisposeScope();
        using var model = Model(golden);
        var adapters = Load(golden, model);
        var (a, b) = (adapters[0], adapters[1]);
        var one = CausalCase.Of(golden, model);

        Check(one, golden, "logits_a", a);
        Check(one, golden, "logits_b", b);
        Check(one, golden, "logits_stack", new StackBlock(a, b));
        Check(one, golden, "logits_stack_ba", new StackBlock(b, a));
        Check(one, golden, "logits_average", new AverageBlock([a, b], [0.7, 0.3]));
        Check(one, golden, "logits_split", new SplitBlock([a, b], [5, 7]));
        CheckAverages(golden, one, adapters);
        CheckRows(golden, model, "logits_batchsplit", (rows, i) => (rows[i], i == 0 ? a : b), 2);
        CheckRows(golden, model, "logits_parallel", (rows, i) => (rows[i % 2], i < 2 ? a : b), 4);
        if (golden.Has("losses"))
        {
            CheckTraining(golden, one, adapters);
        }

        adapters.ForEach(adapter => adapter.Dispose());
    }

    /// <summary>Where the library itself fails, ours says why it does not either.</summary>
    [Fact]
    public void Split_OfLoras_ThrowsSayingWhy()
    {
        Assert.SkipUnless(GoldenFolder.Takes("adapterhub", "compose_lora__bert_cls"), "The case is not listed yet.");
        using var golden = new Golden(GoldenFolder.PathOf("adapterhub", "compose_lora__bert_cls"));
        using var model = Model(golden);
        var adapters = Load(golden, model);

        var thrown = Should.Throw<AdapterException>(() => new ComposedAdapter(new SplitBlock([adapters[0], adapters[1]], [5, 7])));

        thrown.Message.ShouldContain("residual stream");
        adapters.ForEach(adapter => adapter.Dispose());
    }

    private static PretrainedModel Model(Golden golden) =>
        PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);

    private static List<HubAdapter> Load(Golden golden, PretrainedModel model) =>
        [.. new[] { "a", "b" }.Select(name => (HubAdapter)AdapterFile.Load(Path.Combine(golden.Folder, "init", name), model))];

    private static void Check(IModelCase one, Golden golden, string name, AdapterBlock block)
    {
        if (golden.Has(name))
        {
            using var composed = new ComposedAdapter(block);
            one.CheckForward(name, [composed]);
        }
    }

    private static void CheckShares(Golden golden, ComposedAdapter fusion, IModelCase one)
    {
        var places = golden.Rows().Places.SelectMany(at => at).ToArray();
        var seen = 0;
        fusion.ReadFusion((site, shares) =>
        {
            var expected = golden[$"attention.{site.Layer}.{(site.Sublayer is Sublayer.FeedForward ? "output_adapter" : "mh_adapter")}"].flatten(0, 1);
            Golden.ShouldAgree($"attention of layer {site.Layer}", shares, expected.index_select(0, tensor(places)), 1e-4);
            seen++;
        });
        one.CheckForward("logits_init", [fusion]);
        fusion.ReadFusion(null);
        seen.ShouldBe(golden.Names.Count(name => name.StartsWith("attention.", StringComparison.Ordinal)));
    }

    private static void CheckRegularization(Golden golden, ComposedAdapter fusion)
    {
        using var frozen = no_grad();
        var expected = golden["regularization_loss"];
        if (expected.item<float>() == 0)
        {
            fusion.RegularizationLoss().ShouldBeNull();
            return;
        }

        Golden.ShouldAgree("regularization_loss", fusion.RegularizationLoss()!.unsqueeze(0), expected, 1e-4);
    }

    private static void CheckAverages(Golden golden, IModelCase one, List<HubAdapter> adapters)
    {
        foreach (var (name, strategy, weights) in new[]
        {
            ("linear", CombineStrategy.Linear, new[] { 0.7, 0.3 }),
            ("lora_linear_only_negate_b", CombineStrategy.LoraLinearOnlyNegateB, [0.7, -0.3]),
            ("lora_delta_w_svd", CombineStrategy.LoraDeltaWSvd, [0.7, 0.3]),
        })
        {
            if (golden.Has($"logits_average_adapter_{name}"))
            {
                using var average = AdapterAverage.Create("avg", adapters, weights, strategy, strategy is CombineStrategy.LoraDeltaWSvd ? 3 : null, normalizes: false);
                one.CheckForward($"logits_average_adapter_{name}", [average]);
            }
        }
    }

    /// <summary>Rows of one batch under different adapters; every real token of every row, or one score for each.</summary>
    private static void CheckRows(Golden golden, PretrainedModel model, string name, Func<List<int[]>, int, (int[] Tokens, HubAdapter Adapter)> row, int count)
    {
        if (!golden.Has(name))
        {
            return;
        }

        using var frozen = no_grad();
        var (rows, places) = golden.Rows();
        var sequences = Enumerable.Range(0, count).Select(i => row(rows, i)).Select(entry => (entry.Tokens, (IReadOnlyList<Adapter>)[entry.Adapter])).ToList();
        using var batch = ForwardBatch.Mixed(sequences, CPU);
        if (model is ClassificationModel classifier)
        {
            Golden.ShouldAgree(name, classifier.Predict(batch), golden[name], 1e-4);
            return;
        }

        var causal = (CausalLanguageModel)model;
        var width = golden["input_ids"].numel();
        var at = Enumerable.Range(0, count / rows.Count).SelectMany(copy => places.SelectMany(row => row.Select(place => place + (copy * width)))).ToArray();
        Golden.ShouldAgree(name, causal.Logits(causal.Hidden(batch), batch), golden[name].flatten(0, 1).index_select(0, tensor(at)), 1e-4);
    }

    /// <summary>Both adapters of a stack train at once, with the last one's head; save_all_adapters wrote what init holds.</summary>
    private static void CheckTraining(Golden golden, IModelCase one, List<HubAdapter> adapters)
    {
        using var stack = new ComposedAdapter(new StackBlock(adapters[0], adapters[1]));
        var all = AdapterHubFile.LoadAll(Path.Combine(golden.Folder, "all"), adapters[0].Model);
        all.Select(adapter => adapter.Name).ShouldBe(["a", "b"]);
        one.CheckForward("logits_a", [all[0]]);
        one.CheckForward("logits_b", [all[1]]);
        all.ToList().ForEach(adapter => adapter.Dispose());

        one.CheckForward("logits_init", [stack]);
        AdapterHubCases.Train(golden, stack, () => one.TrainingLoss([stack]));
        one.CheckForward("logits_trained", [stack], 1e-3);
        var folder = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;
        try
        {
            foreach (var adapter in adapters)
            {
                AdapterFile.Save(adapter, folder, golden.Meta.GetProperty("base").GetString()!);
                AdapterHubCases.CheckTensors(folder, Path.Combine(golden.Folder, "trained", adapter.Name), AdapterHubFile.WeightsName, AdapterHubFile.OldWeightsName);
            }

            AdapterHubCases.CheckTensors(folder, Path.Combine(golden.Folder, "trained", "b"), AdapterHubFile.HeadWeightsName, AdapterHubFile.OldHeadWeightsName);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}

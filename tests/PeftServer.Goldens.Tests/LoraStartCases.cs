using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// How A and B start where the weight or the data decides: as in PEFT, but for the signs of singular vectors, which no decomposition promises.
/// </summary>
public sealed class LoraStartCases
{
    private static TheoryData<string> Those(params string[] names) => [.. names.Where(name => GoldenFolder.Takes("adapters", name))];

    /// <summary>Starts whose product BA is one whatever the signs.</summary>
    public static TheoryData<string> Products => Those("lora_pissa", "lora_olora", "lora_loftq", "lora_loftq_iter3", "lora_corda_ipm", "lora_corda_kpm");

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Products))]
    public void Initialize_FromTheWeight_GivesPeftsProductAndBase(string name)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var model = Llama();
        using var adapter = Started(golden, model);
        using var file = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", AdapterFile.WeightsName));

        foreach (var (site, part) in Projections(adapter))
        {
            var product = file.Tensor($"{Adapter.Prefix}{site.Path}.lora_B.weight").mm(file.Tensor($"{Adapter.Prefix}{site.Path}.lora_A.weight"));
            Golden.ShouldAgree(site.Path, part.B.mm(part.A), product, 1e-3);
            if (golden.Has($"base.{Adapter.Prefix}{site.Path}"))
            {
                Golden.ShouldAgree($"base of {site.Path}", site.DenseWeight().Minus(part.Shift!.Dense()), golden[$"base.{Adapter.Prefix}{site.Path}"], 1e-4);
            }
        }
    }

    /// <summary>Starts whose rows of A and columns of B are PEFT's, each with a sign of its own.</summary>
    public static TheoryData<string> Directions => Those("lora_eva", "lora_ga", "lora_mica");

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Directions))]
    public void Initialize_FromTheDataOrWeight_GivesPeftsDirections(string name)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var model = Llama();
        using var adapter = Started(golden, model);
        using var file = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", AdapterFile.WeightsName));

        foreach (var (site, part) in Projections(adapter))
        {
            var (a, b) = (file.Tensor($"{Adapter.Prefix}{site.Path}.lora_A.weight"), file.Tensor($"{Adapter.Prefix}{site.Path}.lora_B.weight"));
            Golden.ShouldAgree($"A of {site.Path}", part.A.mul(part.A.mul(a).sum(1).sign().unsqueeze(1)), a, 1e-3);
            Golden.ShouldAgree($"B of {site.Path}", part.B.mul(part.B.mul(b).sum([0]).sign().unsqueeze(0)), b, 1e-3);
        }
    }

    /// <summary>Adapters that only their run could load are saved as plain ones of twice the rank.</summary>
    public static TheoryData<string> Converted => Those("lora_corda_ipm", "lora_ga");

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Converted))]
    public void Portable_TrainedAdapter_LoadsOnTheBaseAsItIs(string name)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var model = Llama();
        using var adapter = AdapterFile.Load(Path.Combine(golden.Folder, "trained"), model, initialFolder: Path.Combine(golden.Folder, "init"));
        var folder = Directory.CreateTempSubdirectory("peftserver-portable-").FullName;

        using var portable = adapter.Portable();
        AdapterFile.Save(portable, folder, "llama");
        using var loaded = AdapterFile.Load(folder, model);

        Directory.Delete(folder, recursive: true);
        ((LoraConfig)loaded.Config).InitLoraWeights.ShouldBe(LoraInit.Default);
        CausalCase.Of(golden, model).CheckForward("logits_trained", [loaded], 1e-4);
        Should.Throw<AdapterException>(() => AdapterFile.Load(Path.Combine(golden.Folder, "trained"), model)).Field.ShouldBe("init_lora_weights");
    }

    /// <summary>What methods draw from a seed of their own, or follows from the weight with a sign that is free.</summary>
    public static TheoryData<string, string> Draws => !GoldenFolder.Takes("adapters", "frod") ? [] : new()
    {
        { "frod", "frod_s_indices" }, { "tinylora", "tinylora_P" }, { "tinylora", "tinylora_A" }, { "osf", "V_low" }, { "osf", "S_low" }, { "adamss", "adamss_newB" },
    };

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Draws))]
    public void Initialize_FromASeed_DrawsWhatPeftDraws(string name, string tensor)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var model = Llama();
        using var adapter = Started(golden, model);
        using var file = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", AdapterFile.WeightsName));

        var checkedNames = adapter.State.Where(entry => entry.Key.Contains(tensor, StringComparison.Ordinal)).ToList();

        checkedNames.ShouldNotBeEmpty();
        foreach (var (key, weight) in checkedNames)
        {
            var (ours, theirs) = (weight.Value.to(ScalarType.Float32), file.Tensor(key).to(ScalarType.Float32));
            ours = ours.dim() == 2 && tensor is "tinylora_A" or "V_low" or "adamss_newB" ? ours.mul(ours.mul(theirs).sum(1).sign().unsqueeze(1)) : ours;
            Golden.ShouldAgree(key, ours, theirs, 1e-3);
        }
    }

    private static Adapter Started(Golden golden, PretrainedModel model)
    {
        var config = AdapterFile.ReadConfig(Path.Combine(golden.Folder, "init"));
        var adapter = config.NeedsCalibration ? config.CreateCalibrated(model, Calibration(golden, (LoraConfig)config)) : config.CreateAdapter(model);
        adapter.Initialize(1);
        return adapter;
    }

    /// <summary>CorDA ran row by row, LoRA-GA all rows at once; EVA saw the batch that the case trains on.</summary>
    private static CalibrationData Calibration(Golden golden, LoraConfig config)
    {
        if (config.InitLoraWeights.Name == "eva")
        {
            return new([[.. golden.Rows().Rows.Select(Row)]]);
        }

        var ids = golden["calibration.input_ids"];
        var rows = Enumerable.Range(0, (int)ids.size(0)).Select(i => Row([.. ids.select(0, i).data<long>().ToArray().Select(id => (int)id)])).ToList();
        return config.InitLoraWeights.Name == "corda" ? new([.. rows.Select(row => new[] { row })]) : new([rows]);
    }

    private static TrainingRow Row(int[] ids) => new(ids, [.. ids.Select(_ => true)], 1);

    private static IEnumerable<(Projection Site, LoraProjection Part)> Projections(Adapter adapter) =>
        adapter.Parts.Select(entry => ((Projection)entry.Site, (LoraProjection)entry.Part));

    private static PretrainedModel Llama() => PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
}

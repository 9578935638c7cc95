using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>Parameters that PEFT counts for real configs: from config.json alone, without weights and without libtorch.</summary>
public sealed class CountCases
{
    private static readonly string[] Tasks = ["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"];

    public static TheoryData<string> Cases => [.. Entries().Select((entry, i) => $"{i}: {(string?)entry["config"]}").Where(_ => GoldenFolder.Takes("counts", "counts"))];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Plan_OfRealConfig_CountsWhatPeftCounts(string name)
    {
        var entry = Entries()[int.Parse(name[..name.IndexOf(':', StringComparison.Ordinal)], System.Globalization.CultureInfo.InvariantCulture)];
        var settings = new JsonObject(entry["lora"]!.AsObject().Select(field => KeyValuePair.Create(field.Key, field.Value?.DeepClone()))) { ["peft_type"] = "LORA" };
        var config = settings.Deserialize<AdapterConfig>(PeftJson.Options)!;
        var head = Enum.Parse<ModelHead>((string)entry["head"]!);
        if (config.TaskType is { } task)
        {
            ModelCatalog.HeadFor(task).ShouldBe(head);
        }

        var watch = Stopwatch.StartNew();
        using var model = PretrainedModel.Plan(PretrainedConfig.Parse(File.ReadAllText(GoldenFolder.PathOf("counts", (string)entry["config"]!))), head);
        using var adapter = config.CreateAdapter(model);

        adapter.TrainableCount.ShouldBe((long)entry["trainable"]!);
        adapter.TotalCount.ShouldBe((long)entry["total"]!);
        watch.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(2));
    }

    [Fact]
    public void HeadFor_EveryTask_HasOne()
    {
        Tasks.ShouldAllBe(task => ModelCatalog.HeadFor(JsonSerializer.Deserialize<TaskType>($"\"{task}\"", PeftJson.Options)) != null);
        ModelCatalog.HeadFor(null).ShouldBeNull();
    }

    private static List<JsonObject> Entries()
    {
        var path = GoldenFolder.PathOf("counts", "counts.json");
        return File.Exists(path) ? [.. JsonNode.Parse(File.ReadAllText(path))!.AsArray().Select(entry => entry!.AsObject())] : [];
    }
}

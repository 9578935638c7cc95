using System.Text;
using System.Text.Json;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Tests.Models;

/// <summary>
/// README's table of architectures, heads and files, written from the catalog: it says what is there, and this test fails where it
/// does not. <c>PEFTSERVER_WRITE_README=1</c> writes it anew.
/// </summary>
public sealed class SupportedModelsTests
{
    private const string Begin = "<!-- supported models: written by SupportedModelsTests -->";
    private const string End = "<!-- end of supported models -->";

    private static readonly (ModelHead Head, string Name)[] Columns =
    [
        (ModelHead.CausalLM, "causal LM"), (ModelHead.Seq2SeqLM, "seq2seq LM"), (ModelHead.MaskedLM, "masked LM"), (ModelHead.SequenceClassification, "sequences"),
        (ModelHead.TokenClassification, "tokens"), (ModelHead.QuestionAnswering, "answers"), (ModelHead.Features, "features"),
    ];

    [Fact]
    public void Readme_TableOfModels_IsWhatTheCatalogSays()
    {
        var path = Path.Combine(Samples.RepositoryRoot, "README.md");
        var readme = File.ReadAllText(path);
        var (begin, end) = (readme.IndexOf(Begin, StringComparison.Ordinal), readme.IndexOf(End, StringComparison.Ordinal));
        begin.ShouldBeGreaterThan(0);
        end.ShouldBeGreaterThan(begin);
        var table = $"{Begin}\n{Table()}";
        if (Environment.GetEnvironmentVariable("PEFTSERVER_WRITE_README") == "1")
        {
            File.WriteAllText(path, readme[..begin] + table + readme[end..]);
            return;
        }

        readme[begin..end].ShouldBe(table, "README.md is out of date: run this test with PEFTSERVER_WRITE_README=1.");
    }

    private static string Table()
    {
        var configs = Configs();
        configs.Keys.Order(StringComparer.Ordinal).ShouldBe(ModelCatalog.ModelTypes.Order(StringComparer.Ordinal), "every architecture needs a reference case");
        var text = new StringBuilder($"| `model_type` | {string.Join(" | ", Columns.Select(column => column.Name))} | GGUF |\n| --- |{string.Concat(Columns.Select(_ => " :-: |"))} :-: |\n");
        foreach (var (type, config) in configs.OrderBy(entry => entry.Key, StringComparer.Ordinal))
        {
            var heads = Columns.Select(column => Supports(config, column.Head) ? "✓" : " ");
            var gguf = GgufArchitecture.ModelTypes.Contains(type) ? "✓" : " ";
            text.Append(System.Globalization.CultureInfo.InvariantCulture, $"| {type} | {string.Join(" | ", heads)} | {gguf} |\n");
        }

        return text.ToString();
    }

    private static bool Supports(string config, ModelHead head)
    {
        try
        {
            PretrainedModel.Plan(PretrainedConfig.Parse(config), head).Dispose();
            return true;
        }
        catch (CheckpointException e) when (e.Message.Contains("with the head", StringComparison.Ordinal))
        {
            return false;
        }
    }

    /// <summary>One config of each architecture, from the reference cases.</summary>
    private static Dictionary<string, string> Configs()
    {
        var configs = new Dictionary<string, string>();
        foreach (var path in Directory.GetFiles(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models"), "config.json", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
        {
            var text = File.ReadAllText(path);
            using var json = JsonDocument.Parse(text);
            configs.TryAdd(json.RootElement.GetProperty("model_type").GetString()!, text);
        }

        return configs;
    }
}

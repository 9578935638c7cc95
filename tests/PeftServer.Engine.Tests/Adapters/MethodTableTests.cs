using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>The README's table of methods: counted on the shapes of a 3B Llama, papers from the settings' documentation, merging by trying.</summary>
public sealed partial class MethodTableTests : IDisposable
{
    private const string Begin = "<!-- methods: written by MethodTableTests -->";
    private const string End = "<!-- end of methods -->";

    /// <summary>Where this is set, the table is written rather than checked.</summary>
    private const string WriteVariable = "PEFTSERVER_WRITE_README";

    /// <summary>Llama 3.2 3B.</summary>
    private const string Shape = """
        {
          "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
          "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": true, "max_position_embeddings": 131072
        }
        """;

    /// <summary>What the table says beside a method's defaults.</summary>
    private static readonly Dictionary<string, (string Json, string Words)> Settings = new()
    {
        ["ADAPTERS vera"] = ("""{ "config": "vera[attn_matrices=['q']]" }""", "q alone"),
        ["CPT"] = ($$"""{ "cpt_token_ids": [{{string.Join(", ", Enumerable.Range(5, 20))}}] }""", "20 tokens"),
        ["TRAINABLE_TOKENS"] = ("""{ "token_indices": [128000, 128001] }""", "2 tokens"),
        ["XLORA"] = ("""{ "adapters": { "0": "a", "1": "b" } }""", "two LoRAs as experts, whose files come on top"),
    };

    /// <summary>The adapters library's methods by one name each.</summary>
    private static readonly Dictionary<string, string> AdapterHubPapers = new()
    {
        ["seq_bn"] = "[Pfeiffer et al. 2020](https://arxiv.org/abs/2005.00247)",
        ["double_seq_bn"] = "[Houlsby et al. 2019](https://arxiv.org/abs/1902.00751)",
        ["par_bn"] = "[He et al. 2021](https://arxiv.org/abs/2110.04366)",
        ["seq_bn_inv"] = "[Pfeiffer et al. 2020](https://arxiv.org/abs/2005.00052)",
        ["compacter"] = "[Mahabadi et al. 2021](https://arxiv.org/abs/2106.04647)",
        ["lora"] = "[Hu et al. 2021](https://arxiv.org/abs/2106.09685)",
        ["ia3"] = "[Liu et al. 2022](https://arxiv.org/abs/2205.05638)",
        ["dora"] = "[Liu et al. 2024](https://arxiv.org/abs/2402.09353)",
        ["vera"] = "[Kopiczko et al. 2023](https://arxiv.org/abs/2310.11454)",
        ["prefix_tuning"] = "[Li and Liang 2021](https://arxiv.org/abs/2101.00190)",
        ["prompt_tuning"] = "[Lester et al. 2021](https://arxiv.org/abs/2104.08691)",
        ["loreft"] = "[Wu et al. 2024](https://arxiv.org/abs/2404.03592)",
        ["mam"] = "[He et al. 2021](https://arxiv.org/abs/2110.04366)",
        ["unipelt"] = "[Mao et al. 2022](https://arxiv.org/abs/2110.07577)",
    };

    private readonly string _experts = Directory.CreateTempSubdirectory("peftserver-experts-").FullName;

    public void Dispose() => Directory.Delete(_experts, recursive: true);

    [Fact]
    public void Readme_TableOfMethods_IsWhatTheCodeSays()
    {
        var path = Path.Combine(Samples.RepositoryRoot, "README.md");
        var text = File.ReadAllText(path);
        var (begin, end) = (text.IndexOf(Begin, StringComparison.Ordinal), text.IndexOf(End, StringComparison.Ordinal));
        (begin >= 0 && end > begin).ShouldBeTrue($"README.md needs '{Begin}' and '{End}'");
        var table = $"{Begin}\n{Table()}{End}";

        if (Environment.GetEnvironmentVariable(WriteVariable) is { Length: > 0 })
        {
            File.WriteAllText(path, text[..begin] + table + text[(end + End.Length)..]);
            return;
        }

        text[begin..(end + End.Length)].ShouldBe(table, $"{WriteVariable}=1 in the environment of this test writes the table");
    }

    private string Table()
    {
        for (var i = 0; i < 2; i++)
        {
            var folder = Directory.CreateDirectory(Path.Combine(_experts, $"{i}")).FullName;
            File.WriteAllText(Path.Combine(folder, AdapterFile.ConfigName), AdapterFile.ConfigText(new LoraConfig(), "llama"));
        }

        var model = PretrainedModel.Plan(PretrainedConfig.Parse(Shape));
        var lines = AdapterConfig.Types.SelectMany(type => type.Key == "ADAPTERS"
            ? AdapterHubPapers.Select(name => Line($"ADAPTERS {name.Key}", name.Value, model))
            : [Line(type.Key, Paper(type.Value), model)]);
        return "| `peft_type` | paper | parameters | file | merges |\n| --- | --- | ---: | ---: | --- |\n" + string.Concat(lines.Select(line => line + "\n"));
    }

    private string Line(string method, string paper, PretrainedModel model)
    {
        var (json, words) = Settings.GetValueOrDefault(method, ("{}", ""));
        var settings = JsonNode.Parse(json)!.AsObject();
        settings["peft_type"] = method.Split(' ')[0];
        if (method.Split(' ') is [_, var name])
        {
            settings["config"] ??= name;
        }

        var config = settings.Deserialize<AdapterConfig>(PeftJson.Options)!;
        using var adapter = (config is XloraConfig mixture ? mixture with { ExpertFolder = _experts } : config).CreateAdapter(model);
        var note = words.Length == 0 ? "" : $" ({words})";
        return $"| `{method.Replace(" ", "` `", StringComparison.Ordinal)}`{note} | {paper} | {adapter.TrainableCount.ToString("N0", CultureInfo.InvariantCulture)} | {Size(AdapterFile.SizeOf(adapter))} | {(Merges(method) ? "yes" : "no")} |";
    }

    private static string Size(long bytes) => bytes switch
    {
        < 1_000_000 => FormattableString.Invariant($"{Math.Max(1, bytes / 1e3):F0} kB"),
        < 100_000_000 => FormattableString.Invariant($"{bytes / 1e6:F1} MB"),
        _ => FormattableString.Invariant($"{bytes / 1e6:F0} MB"),
    };

    private static bool Merges(string method)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = AdapterContractTests.Create(method, model);
        adapter.Initialize(1);
        return Record.Exception(adapter.MergeAndUnload) switch
        {
            null => true,
            NotSupportedException => false,
            var other => throw new InvalidOperationException($"Merging {method} failed.", other),
        };
    }

    /// <summary>The papers that the settings' documentation names, as links.</summary>
    private static string Paper(Type type)
    {
        var file = Directory.GetFiles(Path.Combine(Samples.RepositoryRoot, "src", "PeftServer.Engine", "Adapters"), $"{type.Name}.cs", SearchOption.AllDirectories).Single();
        var text = File.ReadAllText(file);
        var papers = Reference().Matches(text[..text.IndexOf($"record {type.Name}", StringComparison.Ordinal)]);
        papers.Count.ShouldBeGreaterThan(0, $"{type.Name} names no paper");
        return string.Join(", ", papers.Select(paper => $"[{paper.Groups[2].Value}]({paper.Groups[1].Value})"));
    }

    [GeneratedRegex("""<see href="([^"]+)">([^<]+)</see>""")]
    private static partial Regex Reference();
}

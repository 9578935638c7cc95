using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The library's short names of configs (its <c>ADAPTER_CONFIG_MAP</c>), with overrides in brackets and unions:
/// <c>seq_bn[reduction_factor=16]</c>, <c>prefix_tuning|par_bn</c>. Complete configs are filled up with the defaults of their class.
/// </summary>
internal static class HubNames
{
    private const string Bn = """
        "original_ln_before": false, "original_ln_after": true, "ln_before": false, "ln_after": false, "init_weights": "bert",
        "init_weights_seed": null, "is_parallel": false, "scaling": 1.0, "use_gating": false, "residual_before_ln": true,
        "adapter_residual_before_ln": false, "inv_adapter": null, "inv_adapter_reduction_factor": null, "cross_adapter": false,
        "leave_out": [], "dropout": 0.0, "phm_layer": false, "phm_dim": 4, "factorized_phm_W": true, "shared_W_phm": false,
        "shared_phm_rule": true, "factorized_phm_rule": false, "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": true,
        "hypercomplex_nonlinearity": "glorot-uniform", "phm_rank": 1, "phm_bias": true, "stochastic_depth": 0.0
        """;

    private const string Lora = """
        "architecture": "lora", "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [], "r": 8, "alpha": 8,
        "dropout": 0.0, "attn_matrices": ["q", "v"], "composition_mode": "add", "init_weights": "lora", "init_weights_seed": null,
        "use_gating": false, "use_dora": false, "vera_d": null, "vera_b": null, "dtype": null
        """;

    private const string Prefix = """
        "architecture": "prefix_tuning", "encoder_prefix": true, "cross_prefix": true, "leave_out": [], "flat": false, "prefix_length": 30,
        "bottleneck_size": 512, "non_linearity": "tanh", "dropout": 0.0, "use_gating": false, "shared_gating": true, "init_weights_seed": null
        """;

    private const string Prompt = """
        "architecture": "prompt_tuning", "prompt_length": 10, "prompt_init": "random_uniform", "prompt_init_text": null,
        "random_uniform_scale": 0.5, "combine": "prefix", "init_weights_seed": null
        """;

    private const string Reft = """
        "architecture": "reft", "layers": "all", "prefix_positions": 3, "suffix_positions": 0, "r": 1, "orthogonality": false,
        "tied_weights": false, "subtract_projection": true, "dropout": 0.05, "non_linearity": null, "dtype": null, "output_reft": true,
        "init_weights_seed": null
        """;

    private const string SeqBn = """ "mh_adapter": false, "output_adapter": true, "reduction_factor": 16, "non_linearity": "relu", "original_ln_before": true """;
    private const string DoubleSeqBn = """ "mh_adapter": true, "output_adapter": true, "reduction_factor": 16, "non_linearity": "swish" """;
    private const string ParBn = """ "mh_adapter": false, "output_adapter": true, "reduction_factor": 2, "non_linearity": "relu", "init_weights": "mam_adapter", "is_parallel": true, "scaling": 4.0 """;
    private const string Invertible = """ "inv_adapter": "nice", "inv_adapter_reduction_factor": 2 """;
    private const string Compact = """ "phm_layer": true, "reduction_factor": 32, "non_linearity": "gelu" """;
    private const string Vera = """ "vera_d": 0.1, "vera_b": 0.0, "init_weights": "vera" """;

    private static readonly Dictionary<string, JsonObject> Configs = new()
    {
        ["seq_bn"] = Of(Bn, SeqBn),
        ["pfeiffer"] = Of(Bn, SeqBn),
        ["double_seq_bn"] = Of(Bn, DoubleSeqBn),
        ["houlsby"] = Of(Bn, DoubleSeqBn),
        ["par_bn"] = Of(Bn, ParBn),
        ["parallel"] = Of(Bn, ParBn),
        ["scaled_par_bn"] = Of(Bn, ParBn, """ "scaling": "learned" """),
        ["scaled_parallel"] = Of(Bn, ParBn, """ "scaling": "learned" """),
        ["seq_bn_inv"] = Of(Bn, SeqBn, Invertible),
        ["pfeiffer+inv"] = Of(Bn, SeqBn, Invertible),
        ["double_seq_bn_inv"] = Of(Bn, DoubleSeqBn, Invertible),
        ["houlsby+inv"] = Of(Bn, DoubleSeqBn, Invertible),
        ["compacter"] = Of(Bn, DoubleSeqBn, Compact),
        ["compacter++"] = Of(Bn, SeqBn, Compact),
        ["prefix_tuning"] = Of(Prefix),
        ["prefix_tuning_flat"] = Of(Prefix, """ "flat": true """),
        ["prompt_tuning"] = Of(Prompt),
        ["lora"] = Of(Lora),
        ["ia3"] = Of(Lora, """ "intermediate_lora": true, "r": 1, "alpha": 1, "attn_matrices": ["k", "v"], "composition_mode": "scale", "init_weights": "ia3" """),
        ["vera"] = Of(Lora, Vera),
        ["dora"] = Of(Lora, """ "use_dora": true """),
        ["dvora"] = Of(Lora, Vera, """ "use_dora": true """),
        ["loreft"] = Of(Reft, """ "orthogonality": true """),
        ["noreft"] = Of(Reft),
        ["direft"] = Of(Reft, """ "subtract_projection": false """),
        ["mam"] = Union(Of(Prefix, """ "bottleneck_size": 800 """), Of(Bn, ParBn)),
        ["unipelt"] = Union(
            Of(Prefix, """ "prefix_length": 10, "use_gating": true """), Of(Bn, SeqBn, """ "use_gating": true """), Of(Lora, """ "alpha": 2, "use_gating": true """)),
    };

    /// <summary>Fields that no default stands in for, by architecture.</summary>
    private static readonly Dictionary<string, string[]> Required = new()
    {
        [""] = ["mh_adapter", "output_adapter", "reduction_factor", "non_linearity"],
        ["reft"] = ["layers", "prefix_positions", "suffix_positions", "r", "orthogonality"],
    };

    public static IReadOnlyCollection<string> All => Configs.Keys;

    public static string Known => $"Known: {string.Join(", ", Configs.Keys)}.";

    /// <summary>The complete config that a name or an object stands for. Throws <see cref="AdapterException"/> naming the field.</summary>
    public static JsonObject Complete(JsonNode? config) => config switch
    {
        JsonObject fields => Filled(fields),
        JsonValue value when value.TryGetValue<string>(out var text) => Named(text),
        _ => throw new AdapterException("config", $"must be an object with the fields of the adapters library, or one of its names. {Known}"),
    };

    /// <summary>All fields of a config's architecture.</summary>
    public static HashSet<string> Fields(JsonObject config)
    {
        var architecture = config["architecture"]?.ToString() ?? "";
        return architecture == "union"
            ? new HashSet<string> { "architecture", "configs" }
            : [.. Defaults(architecture).Select(field => field.Key), .. Required.GetValueOrDefault(architecture, []), "architecture"];
    }

    /// <summary>The config as the library reads it back: what it would lose stays in, what it does not know stays out.</summary>
    public static JsonObject Written(JsonObject config)
    {
        var written = config.DeepClone().AsObject();
        if (written["configs"] is JsonArray parts)
        {
            written["configs"] = new JsonArray([.. parts.Select(part => Written(part!.AsObject()))]);
        }

        // The library itself forgets these two and takes the defaults on reload; it reads them where they stand.
        DropDefault(written, "subtract_projection", true);
        DropDefault(written, "random_uniform_scale", 0.5);
        return written;
    }

    /// <summary>The config of an older version in today's terms.</summary>
    public static JsonNode? Modern(JsonNode? config, string? version)
    {
        if (config?.DeepClone() is not JsonObject fields)
        {
            return config?.DeepClone();
        }

        // Before the library had versions in its files, "gelu" was the approximation.
        if (version is null && fields["non_linearity"] is JsonValue name && name.TryGetValue<string>(out var act))
        {
            fields["non_linearity"] = act switch { "gelu" => "gelu_new", "gelu_orig" => "gelu", _ => act };
        }

        // Before 1.1 a LoRA was trained without alpha/r.
        const string Library = "adapters.";
        if (version?.StartsWith(Library, StringComparison.Ordinal) is true && Version.TryParse(version[Library.Length..].Split('a', 'b', 'r', 'd')[0].TrimEnd('.'), out var number)
            && number < new Version(1, 1) && (string?)fields["architecture"] == "lora")
        {
            fields["alpha"] = fields["r"]?.DeepClone();
        }

        return fields;
    }

    private static void DropDefault(JsonObject fields, string name, JsonNode value)
    {
        if (fields[name] is { } given && JsonNode.DeepEquals(given, value))
        {
            fields.Remove(name);
        }
    }

    private static JsonObject Named(string text)
    {
        var parts = Split(text, '|').Select(part => One(part.Trim())).ToArray();
        return parts is [var only] ? only : Union(parts);
    }

    private static JsonObject One(string text)
    {
        var bracket = text.IndexOf('[', StringComparison.Ordinal);
        var name = bracket < 0 ? text : text[..bracket];
        if (!Configs.TryGetValue(name, out var preset) || (bracket >= 0 && !text.EndsWith(']')))
        {
            throw new AdapterException("config", $"'{text}' is unknown. {Known} Overrides stand in brackets: seq_bn[reduction_factor=16].");
        }

        var config = preset.DeepClone().AsObject();
        foreach (var pair in bracket < 0 ? [] : Split(text[(bracket + 1)..^1], ','))
        {
            var at = pair.IndexOf('=', StringComparison.Ordinal);
            var field = at < 0 ? pair.Trim() : pair[..at].Trim();
            if (at < 0 || !config.ContainsKey(field))
            {
                throw new AdapterException(field, $"'{name}' has no such field. It has {string.Join(", ", config.Select(entry => entry.Key))}.");
            }

            config[field] = Value(field, pair[(at + 1)..].Trim());
        }

        return Filled(config);
    }

    /// <summary>A value as Python writes it.</summary>
    private static JsonNode? Value(string field, string text)
    {
        try
        {
            return text switch
            {
                "True" => true,
                "False" => false,
                "None" => null,
                _ => JsonNode.Parse(text.Replace('\'', '"').Replace("True", "true", StringComparison.Ordinal).Replace("False", "false", StringComparison.Ordinal)),
            };
        }
        catch (JsonException) when (text.Length > 0 && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '-'))
        {
            return text;
        }
        catch (JsonException)
        {
            throw new AdapterException(field, $"'{text}' is no value. Write numbers, True, False, None, 'text' or lists.");
        }
    }

    private static JsonObject Filled(JsonObject given)
    {
        var config = given.DeepClone().AsObject();
        var architecture = config["architecture"]?.ToString() ?? "";
        if (architecture == "union")
        {
            config["configs"] = new JsonArray([.. (config["configs"] as JsonArray ?? []).Select(one => Complete(one?.DeepClone()))]);
            return config;
        }

        if (Required.GetValueOrDefault(architecture, []).FirstOrDefault(field => config[field] is null) is { } missing)
        {
            throw new AdapterException(missing, $"is missing from the config. Give it, or start from a name such as \"seq_bn\". {Known}");
        }

        foreach (var (field, value) in Defaults(architecture))
        {
            config.TryAdd(field, value?.DeepClone());
        }

        // The library refuses a whole number here; people mean it as the number it is.
        if (config["scaling"] is JsonValue scaling && scaling.TryGetValue<int>(out var whole))
        {
            config["scaling"] = JsonNode.Parse(whole.ToString(CultureInfo.InvariantCulture) + ".0");
        }

        return config;
    }

    private static JsonObject Defaults(string architecture) => architecture switch
    {
        "" => Of(Bn),
        "lora" => Of(Lora),
        "prefix_tuning" => Of(Prefix),
        "prompt_tuning" => Of(Prompt),
        "reft" => Of(Reft),
        _ => throw new AdapterException("architecture", $"'{architecture}' is not supported. {Known}"),
    };

    /// <summary>Cut at a separator outside brackets and quotes.</summary>
    private static List<string> Split(string text, char separator)
    {
        var (parts, depth, start, quote) = (new List<string>(), 0, 0, '\0');
        for (var i = 0; i < text.Length; i++)
        {
            quote = text[i] switch
            {
                '\'' or '"' when quote == '\0' => text[i],
                var c when c == quote => '\0',
                _ => quote,
            };
            depth += quote != '\0' ? 0 : text[i] is '[' or '{' ? 1 : text[i] is ']' or '}' ? -1 : 0;
            if (text[i] == separator && depth == 0 && quote == '\0')
            {
                parts.Add(text[start..i]);
                start = i + 1;
            }
        }

        return [.. parts, text[start..]];
    }

    private static JsonObject Of(params string[] parts)
    {
        var config = new JsonObject();
        foreach (var part in parts)
        {
            foreach (var (field, value) in JsonNode.Parse($"{{ {part} }}")!.AsObject())
            {
                config[field] = value?.DeepClone();
            }
        }

        return config;
    }

    private static JsonObject Union(params JsonObject[] configs) => new() { ["architecture"] = "union", ["configs"] = new JsonArray([.. configs]) };
}

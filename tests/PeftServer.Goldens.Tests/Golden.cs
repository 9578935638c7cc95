using System.Text.Json;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>One reference case: its tensors and <c>meta.json</c>.</summary>
internal sealed class Golden : IDisposable
{
    private readonly SafetensorsFile _file;
    private readonly List<IDisposable> _kept = [];

    public Golden(string folder)
    {
        Folder = folder;
        _file = SafetensorsFile.Open(Path.Combine(folder, "golden.safetensors"));
        Meta = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "meta.json"))).RootElement;
    }

    /// <summary>A case without <c>meta.json</c>, of a kind that its reader knows.</summary>
    public Golden(string folder, string kind)
    {
        Folder = folder;
        _file = SafetensorsFile.Open(Path.Combine(folder, "golden.safetensors"));
        Meta = JsonSerializer.SerializeToElement(new Dictionary<string, string> { ["kind"] = kind });
    }

    public string Folder { get; }

    public JsonElement Meta { get; }

    public IEnumerable<string> Names => _file.Header.Entries.Keys;

    public bool Has(string name) => _file.Header.Entries.ContainsKey(name);

    public Tensor this[string name] => _file.Tensor(name);

    /// <summary>The rows of a padded batch without their padding, and where their tokens stood in it.</summary>
    public (List<int[]> Rows, List<long[]> Places) Rows(string ids = "input_ids", string mask = "attention_mask") => Rows(this[mask], ids);

    /// <summary>The same for a mask of one's own.</summary>
    public (List<int[]> Rows, List<long[]> Places) Rows(Tensor mask, string ids = "input_ids")
    {
        using var scope = NewDisposeScope();
        var (rows, places) = (new List<int[]>(), new List<long[]>());
        var (width, tokens, kept) = (this[ids].size(1), this[ids].data<long>().ToArray(), mask.data<long>().ToArray());
        for (var start = 0L; start < tokens.Length; start += width)
        {
            var at = Enumerable.Range(0, (int)width).Select(i => start + i).Where(i => kept[i] != 0).ToArray();
            rows.Add([.. at.Select(i => (int)tokens[i])]);
            places.Add(at);
        }

        return (rows, places);
    }

    /// <summary>max|a − b| / max|b|.</summary>
    public static double Error(Tensor actual, Tensor expected)
    {
        using var scope = NewDisposeScope();
        expected.shape.ShouldBe(actual.shape);
        if (expected.numel() == 0)
        {
            return 0; // a module that AdaLoRA left without ranks
        }

        var (a, b) = (actual.to(ScalarType.Float64), expected.to(ScalarType.Float64));
        var difference = a.Minus(b).abs().max().item<double>();
        return difference == 0 ? 0 : difference / b.abs().max().item<double>();
    }

    /// <summary>Fails, naming the tensor, when its error is above the tolerance.</summary>
    public static void ShouldAgree(string what, Tensor actual, Tensor expected, double tolerance)
    {
        var error = Error(actual, expected);
        (error <= tolerance).ShouldBeTrue($"{what}: error {error:E2} is above {tolerance:E0}");
    }

    /// <summary>Something that lives as long as this.</summary>
    public T Keep<T>(T one)
        where T : IDisposable
    {
        _kept.Add(one);
        return one;
    }

    public void Dispose()
    {
        _kept.ForEach(one => one.Dispose());
        _file.Dispose();
    }
}

using System.Text;
using Microsoft.Extensions.Options;
using PeftServer.Core.Storage;

namespace PeftServer.Core.Tests.Storage;

public sealed class AdapterFoldersTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("peft-adapters-").FullName;
    private readonly IArtifactStore _store;
    private readonly AdapterFolders _folders;

    public AdapterFoldersTests()
    {
        var options = Options.Create(new StorageOptions { Root = Path.Combine(_root, "store"), Cache = Path.Combine(_root, "cache") });
        _store = new FolderArtifactStore(options, TimeProvider.System);
        _folders = new AdapterFolders(_store, options);
    }

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Materialize_WhatWasPut_IsTheSameFolder()
    {
        var folder = Folder(("adapter_config.json", "{}"), ("tokenizer/added.json", "[]"));

        var manifest = await _folders.PutAsync(folder, Now);
        var copies = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => _folders.MaterializeAsync(manifest, Now)));

        copies.Distinct().Count().ShouldBe(1);
        File.ReadAllText(Path.Combine(copies[0], "tokenizer", "added.json")).ShouldBe("[]");
        Directory.GetDirectories(Path.GetDirectoryName(copies[0])!).Length.ShouldBe(1);
    }

    [Fact]
    public void Digest_OfKnownFiles_IsTheSha256OfTheirSortedList()
    {
        var manifest = new AdapterManifest([new AdapterFile("b", CoreHost.Sha("2"), 1), new AdapterFile("a", CoreHost.Sha("1"), 1)]);

        manifest.Digest.ShouldBe(CoreHost.Sha($"a\0{CoreHost.Sha("1")}\nb\0{CoreHost.Sha("2")}\n"));
    }

    [Fact]
    public async Task Put_FolderWithALink_Throws()
    {
        var folder = Folder(("adapter_config.json", "{}"));
        File.CreateSymbolicLink(Path.Combine(folder, "weights"), "/etc/passwd");

        await Should.ThrowAsync<InvalidDataException>(() => _folders.PutAsync(folder, Now));
    }

    [Fact]
    public async Task Materialize_PathThatLeavesTheFolder_Throws()
    {
        var manifest = await _folders.PutAsync(Folder(("a", "x")), Now);
        var hostile = new AdapterManifest([manifest.Files[0] with { Path = "../../outside" }]);

        await Should.ThrowAsync<InvalidDataException>(() => _folders.MaterializeAsync(hostile, Now));

        File.Exists(Path.Combine(_root, "outside")).ShouldBeFalse();
    }

    [Fact]
    public async Task Materialize_DamagedBlob_ThrowsAndLeavesNoFolder()
    {
        var manifest = await _folders.PutAsync(Folder(("a", "x")), Now);
        var blob = Directory.GetFiles(Path.Combine(_root, "store", "blobs"), "*", SearchOption.AllDirectories).Single();
        File.WriteAllText(blob, "y");

        await Should.ThrowAsync<InvalidDataException>(() => _folders.MaterializeAsync(manifest, Now));

        Directory.GetDirectories(Path.Combine(_root, "cache", "adapters")).ShouldBeEmpty();
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    private string Folder(params (string Path, string Text)[] files)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_root, Guid.NewGuid().ToString("N"))).FullName;
        foreach (var (path, text) in files)
        {
            var full = Path.Combine(folder, path);
            Directory.CreateDirectory(Path.GetDirectoryName(full)!);
            File.WriteAllText(full, text, new UTF8Encoding(false));
        }

        return folder;
    }
}
